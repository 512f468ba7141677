"""What a comparison tells, as one typed value: `capcsim compare --json` prints it, table and figure read it."""

from typing import Any

from capcsim.scenario import Network
from capcsim.study.result import Part

SCENARIO_NETWORK = "scenario"
"""The name of the scenario's own network."""


class Times(Part):
    """What the queries of all querying parties took on one network, simulated."""

    latency_median_s: float | None
    latency_max_s: float | None
    makespan_s: float
    bytes: int
    labels: int


class Votes(Part):
    """How often real execution gave the reference's vote; `float32` is the share that the model itself would give."""

    votes: int
    disagreements: int
    upper_bound_95: float | None
    float32: float | None


class BackendRow(Part):
    """One backend: whom it protects, what a pair costs on this host by the clock, and its run of the scenario."""

    name: str
    backend: str
    options: dict[str, Any]
    security: str
    exact: bool
    leaks: dict[str, str]
    argmax: str
    release: str
    model: str
    steps: dict[str, dict[str, Any]]
    total: dict[str, Any]
    setup: dict[str, Any]
    details: dict[str, Any]
    networks: dict[str, Times]
    agreement: Votes
    label_accuracy: float | None
    vote_agreement: float | None
    accuracy_before: float | None
    accuracy_after: float | None
    epsilon: float

    @property
    def own(self) -> Times:
        """On the scenario's own network."""
        return self.networks[SCENARIO_NETWORK]


class Comparison(Part):
    """Everything that a comparison tells; `fastest_protected` names a backend for each network, None without any."""

    scenario: str
    parties: int
    voters: int
    queriers: int
    labels_wanted: int
    data: str
    data_note: str
    seed: int
    batch: int
    noise: str
    networks: dict[str, Network]
    backends: tuple[BackendRow, ...]
    stages: dict[str, int]
    fastest_protected: dict[str, str | None]
    host: dict[str, Any]
    versions: dict[str, str]
