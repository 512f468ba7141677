"""Which stage each key of a scenario changes first, found by running, not by reading the table."""

import copy
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from capcsim.learning.datasets import load_dataset
from capcsim.learning.ensemble import Ensemble
from capcsim.scenario import Scenario, parse_scenario
from capcsim.study.books import scratch_books
from capcsim.study.means import Means
from capcsim.study.stages import FIRST_STAGE, STAGES, TOLD, Memory, first_stage
from capcsim.study.trained import Given, deal_out
from capcsim.study.walk import Walked, load_backend, walk

Tree = dict[str, Any]
BASE: Tree = {
    "parties.count": 5,
    "models.kinds": ["logistic"],
    "models.epochs": 3,
    "queries.per_querier": 9,
    "queries.in_flight": 1,
    # Pays for six labels.
    "privacy.epsilon": 21.0,
}
"""A budget that binds, so that what it depends on changes how much is asked."""
CONFIDENT = {"privacy.mechanism": "confident-gnmax", "privacy.threshold": 2, "privacy.sigma1": 1.0}
LATE = {"protocol.deadline_s": 30.0}
NONE = {"data": {"source": "none", "classes": 10, "agreement": 0.8}, "queries.selection": "random",
        "data.input_shape": [1, 4, 4]}  # fmt: skip
POISSON = {"workload": {"arrivals": "poisson", "per_hour": 3600.0}}
HOURS = {"workload": {"arrivals": "hours", "per_hour": 360.0, "opens": "08:00", "closes": "09:00"}}
HOLIDAY = {"calendar.holidays": ["2024-01-01"]}
PLACES = {
    "parties.count": None,
    "parties.queriers": None,
    "sites": {"a": {}, "b": {"place": "berlin"}},
    "guardian": {"site": "a"},
    "network.latency_within_s": 0.001,
    "groups": {
        "one": {"count": 3, "queriers": 2, "site": "a", "machine": "server", "workload": POISSON["workload"]},
        "two": {"count": 2, "site": "b", "hours": {"opens": "08:00", "closes": "20:00"}},
    },
    "machines.server": {"cores": 2},
}
"""Five parties, of which two ask."""


def changed(tree: Tree, changes: Tree) -> Scenario:
    tree = json.loads(json.dumps(tree))
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = copy.deepcopy(value)
        if value is None:
            del place[last]
    return parse_scenario(tree)


def through(scenario: Scenario, memory: Memory) -> Walked:
    means = Means(memory=memory)
    with closing(load_backend(scenario)) as backend, scratch_books(scenario) as books:
        return walk(deal_out(scenario, [backend], means), backend, books, means)


@pytest.fixture(autouse=True)
def empty_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is not in memory has to be made."""
    monkeypatch.setenv("CAPCSIM_CACHE", str(tmp_path))


Base = tuple[Memory, Walked]


@pytest.fixture(scope="module")
def bases(smoke_tree: Tree) -> Callable[[Tree], Base]:
    """By what it differs in from the usual one: a memory with the base scenario in it, made when it is asked for."""
    made: dict[str, Base] = {}

    def base(changes: Tree) -> Base:
        name = json.dumps(changes)
        if name not in made:
            memory = Memory()
            made[name] = memory, through(changed(smoke_tree, BASE | changes), memory)
        return made[name]

    return base


EVERYTHING = set(STAGES)
WORLD = {"simulated"}
LABELS = {"simulated", "judged"}
ASKED = {"asked", "priced", "simulated", "judged"}
# Changes to the base, what is made anew, and what else the base has. What a stage passes on unchanged stops there.
CASES: list[tuple[Tree, set[str], Tree]] = [
    ({"title": "Another"}, set(), {}),
    ({"prices.per_core_hour": 2.0}, set(), {}),
    ({"prices.per_gb_sent": 2.0}, set(), {}),
    ({"prices.currency": "CHF"}, set(), {}),
    ({"network.latency_s": 0.02}, WORLD, {}),
    ({"network.party.up_bps": 1e8 - 1}, WORLD, {}),
    ({"network.party.down_bps": 1e8 - 1}, WORLD, {}),
    ({"network.guardian.up_bps": 2e9}, WORLD, {}),
    ({"network.guardian.down_bps": 2e9}, WORLD, {}),
    ({"machines.party.cores": 3}, WORLD, {}),
    ({"machines.party.speed": 2.0}, WORLD, {}),
    ({"machines.guardian.cores": 3}, WORLD, {}),
    ({"machines.guardian.speed": 2.0}, WORLD, {}),
    ({"machines.parties_per_machine": 2}, WORLD, {}),
    ({"faults.drop_probability": 0.6}, LABELS, LATE),
    ({"faults.decline_probability": 0.6}, LABELS, {}),
    ({"queries.in_flight": 2}, WORLD, {}),
    ({"queries.batch": 4}, {"priced", "simulated"}, {}),
    ({"queries.selection": "random"}, ASKED, {}),
    ({"queries.per_querier": 5}, ASKED, {}),
    ({"queries.rounds": 2, "privacy.budget_scope": "coalition"}, ASKED | {"trained"}, {}),
    ({"privacy.epsilon": 25.0}, ASKED, {}),
    ({"privacy.sigma": 1.2}, ASKED, {}),
    ({"privacy.delta": 1e-3}, ASKED, {}),
    ({"privacy.analysis": "theorem6-mironov"}, ASKED, {}),
    ({"privacy.mechanism": "lnmax", "privacy.sigma": None, "privacy.scale": 1.0}, ASKED, {}),
    ({"privacy.scale": 1.5, "privacy.mechanism": "lnmax", "privacy.sigma": None}, ASKED, {}),
    ({"privacy.corrupted_parties": 2}, ASKED, {}),
    ({"privacy.unit": "record"}, ASKED, {"parties.virtual_per_party": 2}),
    ({"privacy.threshold": 3}, {"priced"} | LABELS, CONFIDENT),
    ({"privacy.sigma1": 4.0}, {"priced"} | LABELS, CONFIDENT),
    ({"privacy.budget_scope": "coalition"}, {"priced"} | LABELS, {}),
    ({"protocol.quorum": 0.5}, WORLD, LATE),
    ({"protocol.deadline_s": 30.0}, {"asked", "priced", "simulated"}, {}),
    ({"protocol.samples": 6}, {"priced", "simulated"}, {}),
    ({"protocol.execute": "all"}, {"priced", "simulated"}, {}),
    ({"protocol.backend": "hybrid"}, {"asked", "priced", "simulated"}, {}),
    ({"protocol.backend": "hybrid", "protocol.options": {"security": 16384}}, {"asked", "priced", "simulated"}, {}),
    ({"models.retrainings": 2}, {"judged"}, {}),
    ({"models.baselines": ["pooling"]}, {"judged"}, {}),
    ({"models.fedavg_rounds": 3}, {"judged"}, {"models.baselines": ["fedavg"]}),
    ({"models.epochs": 4}, EVERYTHING, {}),
    ({"models.batch_size": 32}, EVERYTHING, {}),
    ({"models.learning_rate": 0.04}, EVERYTHING, {}),
    ({"models.weight_decay": 0.01}, EVERYTHING, {}),
    ({"models.kinds": ["mlp"]}, EVERYTHING, {}),
    ({"models.hidden": [8]}, EVERYTHING, {"models.kinds": ["mlp"]}),
    ({"models.width": 0.5}, EVERYTHING, {"models.kinds": ["mlp"]}),
    ({"models.trees": 10}, EVERYTHING, {"models.kinds": ["random-forest"]}),
    ({"models.tree_depth": 2}, EVERYTHING, {"models.kinds": ["random-forest"]}),
    ({"parties.count": 6}, EVERYTHING, {}),
    ({"parties.queriers": 3}, ASKED, {}),
    ({"parties.virtual_per_party": 2}, EVERYTHING, {}),
    ({"data.train_per_party": 39}, EVERYTHING, {}),
    ({"data.pool_per_querier": 29}, ASKED, {}),
    ({"data.evaluation": 199}, {"judged"}, {}),
    ({"data.size_spread": 0.5}, EVERYTHING, {}),
    ({"data.weak_classes": [3]}, EVERYTHING, {}),
    ({"data.weak_ratio": 0.5}, EVERYTHING, {"data.weak_classes": [3]}),
    ({"data.weak_parties": "all"}, EVERYTHING, {"data.weak_classes": [3]}),
    ({"data.partition": "dirichlet", "data.dirichlet_alpha": 1.0}, EVERYTHING, {}),
    ({"data.dirichlet_alpha": 1.0}, EVERYTHING, {"data.partition": "dirichlet", "data.dirichlet_alpha": 2.0}),
    ({"data.source": "breast_cancer", "data.train_per_party": 20}, EVERYTHING, {}),
    ({"seed": 8}, EVERYTHING, {}),
    ({"data.classes": 9}, {"priced", "simulated"}, NONE),
    ({"data.agreement": 0.7}, {"priced", "simulated"}, NONE),
    ({"data.input_shape": [16]}, {"priced", "simulated"}, NONE),
    ({"workload.arrivals": "poisson", "workload.per_hour": 60.0}, {"priced", "simulated"}, {}),
    ({"workload.per_hour": 60.0}, WORLD, POISSON),
    ({"workload.opens": "07:00"}, WORLD, HOURS),
    ({"workload.closes": "08:05"}, WORLD, HOURS),
    ({"workload.days": ["sat"]}, WORLD, HOURS),
    ({"calendar.start": "2024-01-01T06:00:00"}, WORLD, HOURS),
    ({"calendar.holidays": ["2024-01-01"]}, WORLD, HOURS),
    ({"workload.holidays": True}, WORLD, HOURS | HOLIDAY),
    ({"queries.wait_s": 30.0}, WORLD, POISSON),
    ({"queries.patience_s": 1e-3}, {"asked", "priced"} | LABELS, POISSON),
    ({"groups.two.count": 3}, EVERYTHING, PLACES),
    ({"groups.one.queriers": 3}, ASKED, PLACES),
    ({"groups.one.per_querier": 5}, ASKED, PLACES),
    ({"groups.two.site": "a"}, WORLD, PLACES),
    ({"groups.two.machine": "guardian"}, WORLD, PLACES),
    ({"groups.two.parties_per_machine": 2}, WORLD, PLACES),
    ({"groups.two.hours.opens": "09:00"}, WORLD, PLACES),
    ({"groups.two.hours.closes": "08:01"}, WORLD, PLACES),
    ({"groups.two.hours.days": ["sun"]}, WORLD, PLACES),
    ({"groups.two.hours.holidays": False}, WORLD, PLACES | HOLIDAY),
    ({"groups.one.workload.per_hour": 60.0}, WORLD, PLACES),
    ({"sites.b.up_bps": 1e5}, WORLD, PLACES),
    ({"sites.b.down_bps": 1e5}, WORLD, PLACES),
    ({"sites.b.utc_offset_h": 1.0}, WORLD, PLACES),
    ({"sites.a.place": "paris", "network.latency_preset": "azure-europe"}, WORLD, PLACES),
    ({"network.latency_preset": "azure-europe", "sites.a.place": "paris"}, WORLD, PLACES),
    ({"network.latency_within_s": 0.002}, WORLD, PLACES),
    ({"network.latency_between_s": {"a": {"b": 0.5}}}, WORLD, PLACES),
    ({"guardian.site": "b"}, WORLD, PLACES),
    ({"guardian.machine": "party"}, WORLD, PLACES),
    ({"dealer.site": "b"}, WORLD, PLACES),
    ({"dealer.machine": "party"}, WORLD, PLACES),
    ({"machines.party.background": 0.5}, WORLD, {}),
    ({"machines.guardian.background": 0.5}, WORLD, {}),
    ({"machines.party.up_bps": 1e5}, WORLD, {}),
    ({"machines.party.down_bps": 1e5}, WORLD, {}),
    ({"machines.guardian.up_bps": 1e5}, WORLD, {}),
    ({"machines.guardian.down_bps": 1e5}, WORLD, {}),
    ({"machines.party.cpu": "pool"}, WORLD, {}),
    ({"machines.guardian.cpu": "pool"}, WORLD, {}),
]
SAMPLE = {"network.latency_s", "prices.per_core_hour", "queries.batch", "privacy.epsilon", "models.retrainings",
          "models.epochs", "data.evaluation", "protocol.execute"}  # fmt: skip
UNTESTED = {
    "data.folder", "data.path", "data.label", "data.site", "data.protected", "data.drop", "data.missing",  # of files
    "privacy.noise", "privacy.book",  # of real noise, whose world is never taken from memory
    "workload.path",
    # As of [workload], which has its cases.
    *(f"groups.workload.{key}" for key in ("arrivals", "path", "opens", "closes", "days", "holidays")),
}  # fmt: skip


def name(case: tuple[Tree, set[str], Tree]) -> str:
    return next(iter(case[0]))


@pytest.mark.parametrize("case", [
    pytest.param(case, id=f"{name(case)}-{number}", marks=() if name(case) in SAMPLE else pytest.mark.slow)
    for number, case in enumerate(CASES)
])  # fmt: skip
def test_a_key_changes_its_stage_and_what_depends_on_it(
    case: tuple[Tree, set[str], Tree], bases: Callable[[Tree], Base], smoke_tree: Tree
) -> None:
    changes, expected, base = case
    before, _ = bases(base)
    memory = Memory(before.values)
    through(changed(smoke_tree, BASE | base | changes), memory)
    anew = {stage for stage, number in memory.stages().items() if number}
    assert anew == expected
    between_rounds = {"trained"} if name(case) == "queries.rounds" else set()  # models are retrained
    assert first_stage(name(case)) == next((each for each in STAGES if each in anew - between_rounds), TOLD)


def sections(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field may hold; a tagged union has several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for each in get_args(annotation) for found in sections(each)]


def keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    found = set()
    for key, field in model.model_fields.items():
        inner = sections(field.annotation)
        found |= set().union(*(keys(kind, f"{prefix}{key}.") for kind in inner)) if inner else {f"{prefix}{key}"}
    return found


def without_name(key: str) -> str:
    """The key as the schema has it, where the user names groups and sites."""
    section, _, rest = key.partition(".")
    return f"{section}.{rest.partition('.')[2]}" if section in ("groups", "sites") else key


def test_every_key_has_its_case() -> None:
    tested = {without_name(key) for changes, _, _ in CASES for key in changes}
    assert keys(Scenario) - tested == UNTESTED
    assert all(first_stage(key) in (*STAGES, TOLD) for key in keys(Scenario))
    assert set(FIRST_STAGE) <= keys(Scenario) | {key.partition(".")[0] for key in keys(Scenario)}


def anew_after(memory: Memory, scenario: Scenario, given: Given | None = None) -> set[str]:
    again = Memory(memory.values)
    means = Means(memory=again)
    with closing(load_backend(scenario)) as backend, scratch_books(scenario) as books:
        walk(deal_out(scenario, [backend], means, given or Given()), backend, books, means)
    return {stage for stage, number in again.stages().items() if number}


def test_noise_that_needs_a_wider_circuit_is_measured_anew(smoke_tree: Tree) -> None:
    base, memory = BASE | {"privacy.epsilon": 5000.0}, Memory()
    through(changed(smoke_tree, base), memory)
    assert "priced" not in anew_after(memory, changed(smoke_tree, base | {"privacy.sigma": 1.2}))
    assert "priced" in anew_after(memory, changed(smoke_tree, base | {"privacy.sigma": 900.0}))


def test_other_samples_in_the_same_places_are_other_content(smoke_tree: Tree) -> None:
    """The parties' own samples stay as they are, so that nothing is trained; what is asked and judged is other."""
    wanted, memory = changed(smoke_tree, BASE), Memory()
    dataset = load_dataset(wanted.data)
    parts, means = Ensemble.of(wanted, dataset).parts, Means(memory=memory)

    def judged_with(rows: Any) -> Walked:
        x = dataset.x.copy()
        x[rows] = 1 - x[rows]
        with closing(load_backend(wanted)) as backend, scratch_books(wanted) as books:
            return walk(deal_out(wanted, [backend], means, Given(replace(dataset, x=x))), backend, books, means)

    base = judged_with([])
    assert judged_with([]).judged is base.judged
    assert judged_with(parts.evaluations[0]).judged.before != base.judged.before
    assert judged_with(parts.pools[0]).asked.key != base.asked.key
