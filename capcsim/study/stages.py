"""The stages of a study, and the values that were made of them."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, TypeVar

Stage: TypeAlias = Literal["trained", "asked", "priced", "simulated", "judged"]
STAGES: tuple[Stage, ...] = ("trained", "asked", "priced", "simulated", "judged")
TOLD = "told"
"""After the last stage: what is only said, or multiplied with."""
T = TypeVar("T")

FIRST_STAGE: Mapping[str, str] = {
    "title": TOLD,
    "seed": "trained",
    "data": "trained",
    "data.pool_per_querier": "asked",
    "data.evaluation": "judged",
    # Without data nothing is trained, and votes are drawn as they are needed.
    "data.classes": "priced",
    "data.agreement": "priced",
    "data.input_shape": "priced",
    "parties": "trained",
    "parties.queriers": "asked",
    "models": "trained",
    "models.retrainings": "judged",
    "models.baselines": "judged",
    "models.fedavg_rounds": "judged",
    "queries": "asked",
    "queries.batch": "priced",
    "queries.in_flight": "simulated",
    "queries.wait_s": "simulated",
    # What the budget pays for decides how much is asked.
    "privacy": "asked",
    # The last batch that it pays for may be smaller.
    "privacy.threshold": "priced",
    "privacy.sigma1": "priced",
    "privacy.budget_scope": "priced",
    "privacy.noise": "simulated",
    "privacy.book": "simulated",
    "protocol": "priced",
    "protocol.backend": "asked",
    "protocol.options": "asked",
    # Where a query can be lost, another is asked in its place.
    "protocol.deadline_s": "asked",
    "protocol.quorum": "simulated",
    "network": "simulated",
    "machines": "simulated",
    "sites": "simulated",
    "guardian": "simulated",
    "dealer": "simulated",
    "calendar": "simulated",
    "workload": "simulated",
    # Queries that come by themselves do not always fill a batch.
    "workload.arrivals": "priced",
    "groups": "simulated",
    "groups.count": "trained",
    "groups.queriers": "asked",
    "groups.per_querier": "asked",
    "groups.workload.arrivals": "priced",
    "faults": "simulated",
    "prices": TOLD,
}
"""The first stage that depends on a key: its own entry, else that of its section; without names that a user gives."""
NAMED = ("groups", "sites", "machines")
"""Tables of names that a user gives."""


def first_stage(key: str) -> str:
    """The first stage that depends on "a.b"; TOLD where none does."""
    section, _, rest = key.partition(".")
    plain = f"{section}.{rest.partition('.')[2]}" if section in NAMED else key
    return FIRST_STAGE.get(plain) or FIRST_STAGE[section]


class Memory:
    """Values of stages by the content that they were made from, in this process; it counts those made anew."""

    def __init__(self, values: Mapping[tuple[str, str], Any] | None = None) -> None:
        self.values: dict[tuple[str, str], Any] = dict(values or {})
        self.made: Counter[str] = Counter()

    def value(self, stage: Stage, key: str, make: Callable[[], tuple[T, bool]]) -> T:
        """The value of a stage; `make` says besides whether anything of it had to be made, or all was on disk."""
        if (stage, key) not in self.values:
            self.values[stage, key], anew = make()
            self.made[stage] += anew
        value: T = self.values[stage, key]
        return value

    def stages(self) -> dict[str, int]:
        """How many values of each stage were made anew."""
        return {stage: self.made[stage] for stage in STAGES}
