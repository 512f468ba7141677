"""One outcome made by hand, in which no two figures that might be confused are equal.

Four parties with two votes each; parties 0 and 1 ask about three classes. Querying party 0 bought four labels, three of
them right, and lost a fifth charge; querying party 1 bought three, one of them right. Comments say what follows.
"""

from collections.abc import Callable
from contextlib import closing
from math import sqrt
from pathlib import Path
from typing import Any

import mpmath
import numpy as np

from capcsim.backend import Capabilities, Compute, Phase, Prepared, PublicModel, Role, Scope, Step, Transcript
from capcsim.costs.measured import Agreement, Measurements, Stratum
from capcsim.journal import Journal
from capcsim.learning.baselines import Baseline
from capcsim.learning.ensemble import Ensemble, PartyModels
from capcsim.learning.metrics import Quality
from capcsim.learning.partition import Partition
from capcsim.learning.samples import Dataset
from capcsim.privacy.accountant import Accountant
from capcsim.privacy.ledger import BudgetScope, Ledger
from capcsim.privacy.mechanisms import GNMax
from capcsim.protocol.admission import Admission
from capcsim.protocol.flow import UNANSWERED
from capcsim.protocol.noise import RealNoise
from capcsim.protocol.steps import Voter
from capcsim.scenario import Scenario
from capcsim.simulation.critical_path import Resource
from capcsim.simulation.log import Location, Log
from capcsim.simulation.world import QueryRow, Simulated
from capcsim.study.asked import Asked
from capcsim.study.books import Books, Spent
from capcsim.study.judged import Judged
from capcsim.study.priced import Priced
from capcsim.study.simulated import Happened
from capcsim.study.trained import Trained
from capcsim.study.walk import Walked

SIGMA, DELTA, BUDGET, MOVED = 10.0, 1e-5, 2.75, 2
CHANGES = {
    "parties.count": 4,
    "parties.virtual_per_party": 2,
    "parties.queriers": 2,
    "queries.per_querier": 6,
    "models.retrainings": 3,
    "privacy.sigma": SIGMA,
    "privacy.delta": DELTA,
    "privacy.epsilon": BUDGET,
    "prices.per_core_hour": 0.5,
    "prices.per_gb_sent": 0.25,
}
NAN = float("nan")
NO_QUORUM = "2 of 6 votes had arrived by the deadline: no quorum"

# The queries of party 0 are of the classes 0, 1, 2, 0, 1 and a sixth that it never asked; those of party 1 of the
# classes 2, 2, 1, 0, 0, 0.
Y = np.array([2, 1, 2, 2, 1, 1, 0, 0, 0, 0, 0, 2])
ASKED = [np.array([7, 4, 2, 9, 1, 11]), np.array([0, 3, 5, 6, 8, 10])]

# querier, query, batch, label, counted, submitted_s, labelled_s, why, declined
QUERIES = [
    QueryRow(0, 0, 0, 0, (2, 3, 4, 5, 6, 7), 10.0, 12.0, "", 0),  # right, after 2 s
    QueryRow(0, 1, 1, 1, (2, 3, 4, 5, 6, 7), 11.0, 18.0, "", 0),  # right, after 7 s
    QueryRow(0, 2, 2, 0, (2, 3, 4, 5, 7), 20.0, 23.0, "", 0),  # wrong, after 3 s; one vote is missing
    QueryRow(0, 3, 3, 0, (2, 3, 6, 7), 30.0, 34.0, "", 2),  # right, after 4 s; two votes were declined
    QueryRow(0, 4, 4, -1, (2, 3), 40.0, 95.0, NO_QUORUM, 0),  # four votes are missing
    QueryRow(1, 0, 0, 2, (0, 1, 4, 5, 6, 7), 50.0, 60.0, "", 0),  # right, after 10 s
    QueryRow(1, 1, 1, 1, (0, 1, 4, 5, 6, 7), 55.0, 66.0, "", 0),  # wrong, after 11 s
    QueryRow(1, 2, 2, 0, (0, 1, 4, 5, 6), 57.0, 87.0, "", 0),  # wrong, after 30 s; one vote is missing
    QueryRow(1, 3, 3, -1, (0, 1, 4, 5, 6, 7), 90.0, 99.0, UNANSWERED, 0),
    QueryRow(1, 4, 3, -1, (0, 1, 4, 5, 6, 7), 90.0, 99.0, UNANSWERED, 0),  # in one batch with the one before
    QueryRow(1, 5, 4, -1, (0,), 100.0, 140.0, NO_QUORUM, 4),  # four votes were declined, one is missing
]

# By querying party and seed: accuracy, accuracy of each class, balanced accuracy, both gaps.
BEFORE = [
    [
        Quality(0.5, (0.25, 0.5, NAN), 0.375, 0.125, 0.5),
        Quality(0.75, (0.75, 0.5, NAN), 0.625, 0.375, 0.25),
        Quality(0.625, (0.5, 0.5, NAN), 0.5, 0.25, 0.375),
    ],
    [
        Quality(0.25, (0.25, 0.25, 0.25), 0.25),
        Quality(0.5, (0.5, 0.75, 0.25), 0.5),
        Quality(0.375, (0.375, 0.5, 0.25), 0.375),
    ],
]
AFTER = [
    [
        Quality(0.75, (1.0, 0.25, NAN), 0.625, 0.0625, 0.3125),
        Quality(0.9375, (0.5, 0.5, NAN), 0.5, 0.1875, 0.1875),
        Quality(0.84375, (0.75, 0.375, NAN), 0.5625, 0.125, 0.25),
    ],
    [
        Quality(0.125, (0.125, 0.25, 0.125), 0.125),
        Quality(0.5, (0.5, 0.5, 0.5), 0.375),
        Quality(0.3125, (0.3125, 0.375, 0.3125), 0.25),
    ],
]
BASELINES = {
    "pooling": Baseline(
        (Quality(0.9, (), 0.8), Quality(0.7, (), 0.5), Quality(0.2, (), 0.2)), None, "all in one place"
    ),
    "fedavg": Baseline((Quality(0.6, (), 0.45), Quality(0.4, (), 0.25)), 4242, "averaged"),
}

CAPABILITIES = Capabilities("none", True, {}, (), (), "in the clear", "in the clear")


PARTIES = {Role.QUERIER: "party 0", Role.ANSWERER: "party 1", Role.GUARDIAN: "guardian"}
SENT = [
    (0, Role.QUERIER, Role.ANSWERER, 300_000_000),
    (0, Role.ANSWERER, Role.QUERIER, 200_000_000),
    (1, Role.QUERIER, Role.GUARDIAN, 1_000_000_000),
    (1, Role.GUARDIAN, Role.QUERIER, 500_000_000),
]
WORKED_S = [6000.0, 3000.0]


def made_log() -> Log:
    """Sums for both querying parties; a place each."""
    log = Log()
    for querier in range(2):
        hosts = PARTIES | {Role.QUERIER: f"party {querier}"}
        log.locations.append(Location(querier, hosts, hosts))
    log.steps["infer"] = 0
    roles = list(Role)
    log.bytes, log.busy_s = np.zeros((2, 1, len(roles), len(roles)), np.int64), np.zeros((2, 1, len(roles)))
    for querier, sender, receiver, nbytes in SENT:
        log.bytes[querier, 0, roles.index(sender), roles.index(receiver)] = nbytes
    log.busy_s[:, 0, roles.index(Role.ANSWERER)] = WORKED_S
    return log


SIMULATED = Simulated(
    queries=QUERIES,
    log=made_log(),
    core_utilisation={"party 0, core 0": 0.25, "party 1, core 0": 0.75, "guardian, core 0": 0.5},
    link_utilisation={"party 0 up": 0.125, "guardian down": 0.375, "party 1 up": 0.0625},
    sent_bytes={"party 0": 300_000_000, "party 1": 1_200_000_000, "guardian": 500_000_000},
    core_s=9000.0,
    stopped={0: "its budget is spent"},
    critical_s={Resource("cores", "party 1"): 80.0, Resource("line", "party 0 up"): 60.0},
)


def sample(*seconds: float) -> Transcript:
    """The answering party's stretches of work."""
    return tuple(Compute(Role.ANSWERER, each, Step.INFER, Phase.ONLINE, Scope.PAIR, ()) for each in seconds)


# Two strata, of which one was measured: 6 s, 1 s, 2 s. Three pairs were executed now, five in earlier runs.
MEASURED = Measurements(
    samples={
        Stratum(Step.INFER, "one", 3): (sample(2.0, 4.0), sample(1.0), sample(2.0)),
        Stratum(Step.RELEASE, "guardian", 1): (),
    },
    agreement=Agreement(pairs=3, votes=30, disagreements=1),
    earlier=Agreement(pairs=5, votes=50, disagreements=2),
    reused_strata=1,
)


# The class for which each voter votes, by query; its own party's queries are not its to answer. The votes agree, but
# on party 0's third query: of those counted there two are for class 0, two for class 1, one for class 2, and voter 6,
# which was not counted, is for class 1.
BALLOTS = [np.tile([0, 1, 0, 2, 0, 0], (8, 1)), np.tile([2, 1, 0, 0, 0, 0], (8, 1))]
BALLOTS[0][2:, 2] = [0, 1, 0, 1, 1, 2]
BALLOTS[0][:2], BALLOTS[1][2:4] = -1, -1


def hand_made(scenario: Callable[..., Scenario], folder: Path, changes: dict[str, Any] | None = None) -> Walked:
    """The outcome."""
    wanted = scenario(CHANGES | (changes or {}))
    accountant = Accountant(GNMax(SIGMA, MOVED), DELTA)
    with (
        closing(Ledger(folder / "ledger.jsonl", accountant, BUDGET, BudgetScope.QUERIER)) as ledger,
        Journal(folder / "releases.jsonl") as releases,
    ):
        # Charges: 5 and 3 by querying party, 8 in all; 3, 5, 5 and 7 by answering party. One bought no label.
        for query, parties in enumerate([(1, 2, 3), (1, 2, 3), (1, 2, 3), (1, 2, 3), (1, 3)]):
            ledger.reserve(0, query, "draw", parties=parties)
        for query, parties in enumerate([(0, 2), (0, 3), (0, 3)]):
            ledger.reserve(1, query, "draw", parties=parties)
        for querier, query in [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]:
            entry = {"querier": querier, "query": query, "counted": "1", "draw": "draw", "label": 0}
            releases.append({"kind": "release", **entry})
        spent = Spent.of(Books(ledger, releases, RealNoise(accountant.mechanism)), range(wanted.parties.queriers))
        admission = Admission(ledger, lambda _: ())
    prepared = Prepared(PublicModel((), (1,), 3, 37, 24), None)
    voters = tuple(Voter(index, index // 2, prepared) for index in range(8))
    dataset, nobody = Dataset("by hand", np.zeros((len(Y), 1), np.float32), Y, 3), Partition([], [], [])
    return Walked(
        trained=Trained(Ensemble(wanted, dataset, nobody), PartyModels((), (), ()), ""),
        capabilities=CAPABILITIES,
        asked=Asked(voters, tuple(ASKED), tuple(BALLOTS), ""),
        priced=Priced(MEASURED, tuple(BALLOTS), ""),
        happened=Happened(SIMULATED, spent, admission),
        judged=Judged(BEFORE, AFTER, BASELINES),
        saturation=0.0625,
    )


def gaussian_epsilon(labels: int, sigma: float = SIGMA, moved_votes: int = MOVED, delta: float = DELTA) -> float:
    """Epsilon of `labels` noisy counts by the definition (Balle and Wang 2018, theorem 8): no code of ours in it.

    A unit that moves its votes from one class to another changes two counts by that many.
    """
    mu = sqrt(2 * labels) * moved_votes / sigma

    def excess(epsilon: Any) -> Any:
        reached = mpmath.ncdf(mu / 2 - epsilon / mu) - mpmath.exp(epsilon) * mpmath.ncdf(-mu / 2 - epsilon / mu)
        return reached - delta

    return float(mpmath.findroot(excess, (0, 99), solver="bisect", maxsteps=200))


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Every number, flag and null in JSON, by where it stands; texts are left out."""
    if isinstance(value, dict):
        return {key: leaf for name, part in value.items() for key, leaf in leaves(part, f"{path}.{name}").items()}
    if isinstance(value, list):
        return {key: leaf for i, part in enumerate(value) for key, leaf in leaves(part, f"{path}[{i}]").items()}
    return {} if isinstance(value, str) else {path.removeprefix("."): value}
