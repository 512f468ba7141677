"""`capcsim compare`: one scenario on several backends and networks, with the same data, models, queries and seeds.

Each backend is measured once; its transcripts are replayed on every network. The noise is seeded, so that labels differ
only where a backend differs: what comes out is not for publication, and no budget of a real run is touched.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from capcsim.choices import Choice
from capcsim.costs.cache import host, versions
from capcsim.costs.profile import profile
from capcsim.errors import ScenarioError
from capcsim.journal import Journal
from capcsim.learning.metrics import average
from capcsim.learning.parallel import Engine
from capcsim.results import Outcome
from capcsim.run import Job, Progress, Silent
from capcsim.scenario import Network, Scenario, parse_scenario
from capcsim.simulation.world import Simulated

SCENARIO_NETWORK = "scenario"


def compare(
    scenario: Scenario,
    choices: Sequence[Choice],
    networks: Mapping[str, Network],
    *,
    repeats: int = 5,
    measure: bool = False,
    workers: int = 1,
    engine: Engine = "loky",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """One row for each backend, as JSON; latencies on the scenario's own network and on each of `networks`.

    `repeats` is of the timed steps. Raises a CapcsimError for anything that the user can mend, before any work.
    """
    progress = progress or Silent()
    everywhere = {SCENARIO_NETWORK: scenario.network, **networks}
    with ExitStack() as stack:
        jobs = [Job(_with_backend(scenario, choice), workers, engine, _Of(str(choice), progress)) for choice in choices]
        for job in jobs:
            stack.enter_context(closing(job.backend))
        rows = []
        for choice, job in zip(choices, jobs, strict=True):
            job.train(jobs[0].learning if job is not jobs[0] else None)
            rows.append(_row(job, choice, everywhere, repeats=repeats, measure=measure, progress=progress))
            job.backend.close()
    return {
        "scenario": scenario.title_as_run,
        "parties": scenario.parties.count,
        "voters": scenario.voters,
        "queriers": scenario.parties.queriers,
        "labels_wanted": scenario.parties.queriers * scenario.queries.per_querier,
        "data": jobs[0].dataset.name,
        "data_note": jobs[0].dataset.note,
        "seed": scenario.seed,
        "batch": scenario.queries.batch,
        "noise": "simulation",
        "networks": {name: network.model_dump() for name, network in everywhere.items()},
        "backends": rows,
        "fastest_protected": {name: _fastest(rows, name) for name in everywhere},
        "host": host(),
        "versions": versions(),
    }


@dataclass(frozen=True)
class _Of:
    """Progress with a backend's name before each stage."""

    name: str
    progress: Progress

    def stage(self, title: str, total: int) -> Callable[[int], None]:
        """As of the whole comparison."""
        return self.progress.stage(f"{self.name}: {title}", total)

    def note(self, text: str) -> None:
        """As of the whole comparison."""
        self.progress.note(f"{self.name}: {text}")


def _with_backend(scenario: Scenario, choice: Choice) -> Scenario:
    tree = scenario.model_dump()
    tree["protocol"] |= {"backend": choice.backend, "options": choice.options}
    tree["privacy"] |= {"noise": "simulation", "book": "record"}
    return parse_scenario(tree)


def _row(
    job: Job, choice: Choice, networks: Mapping[str, Network], *, repeats: int, measure: bool, progress: Progress
) -> dict[str, Any]:
    """All about one backend."""
    job.plan_queries(0)
    profiled = _profile(job, choice, repeats, progress)
    job.execute(fresh=measure)
    times, outcome = _simulate(job, choice, networks, progress)
    measured = outcome.measured
    found, agreement = job.backend.capabilities, measured.agreement + measured.earlier
    return {
        "name": str(choice),
        "backend": choice.backend,
        "options": choice.options,
        "security": found.security,
        "exact": found.exact,
        "leaks": {role.value: what for role, what in found.leaks.items()},
        "argmax": found.argmax,
        "release": found.release,
        **{key: profiled[key] for key in ("model", "steps", "total", "setup", "details")},
        "networks": times,
        "agreement": {
            "votes": agreement.votes,
            "disagreements": agreement.disagreements,
            "upper_bound_95": agreement.upper_bound(),
            "float32": profiled["agreement_float32"],
        },
        **_results(outcome),
    }


def _profile(job: Job, choice: Choice, repeats: int, progress: Progress) -> dict[str, Any]:
    """Every step by the clock, with the first party's real queries and the model of a party that answers it."""
    voter = next(voter for voter in job.voters if voter.party != 0)
    inputs = job.learning.samples(0, job.asked[0])
    if not len(inputs):
        allowed = "enough for one label; raise it, or the noise"
        raise ScenarioError("privacy.epsilon", job.scenario.privacy.epsilon, allowed)
    kinds = job.scenario.models.kinds
    advance = progress.stage(f"{choice}: timing", repeats + 1)
    batch = min(job.scenario.queries.batch, len(inputs))
    return profile(
        job.backend,
        job.learning.voters[voter.index].estimator,
        kinds[voter.party % len(kinds)],
        batch=batch,
        repeats=repeats,
        inputs=inputs,
        advance=advance,  # type: ignore[arg-type]
    )


def _simulate(
    job: Job, choice: Choice, networks: Mapping[str, Network], progress: Progress
) -> tuple[dict[str, dict[str, Any]], Outcome]:
    """The world on each network, with a ledger of its own; what came out on the first.

    Where a deadline makes labels depend on the network, later rounds do too.
    """
    times: dict[str, dict[str, Any]] = {}
    first: Outcome | None = None
    for name, network in networks.items():
        known = next((other for other in times if networks[other] == network), None)
        if known is not None:
            times[name] = times[known]
            continue
        with TemporaryDirectory(prefix="capcsim-") as folder, ExitStack() as stack:
            ledger = stack.enter_context(closing(job.open_ledger(Path(folder) / "ledger.jsonl")))
            releases = stack.enter_context(Journal(Path(folder) / "releases.jsonl"))
            there = job.fork(network, _Of(f"{choice} on {name}", progress))
            simulated = there.simulate(there.measured, ledger, releases)
            for round_ in range(1, job.scenario.queries.rounds):
                there.plan_queries(round_)
                simulated = there.simulate(there.execute(fresh=False), ledger, releases)
            times[name] = _times(simulated)
            first = first or there.outcome(simulated, ledger)
    assert first, "the scenario's own network is always there"
    return times, first


def _times(simulated: Simulated) -> dict[str, Any]:
    """From a query's submission to its label."""
    latencies_s = [row.labelled_s - row.submitted_s for row in simulated.queries if row.label >= 0]
    return {
        "latency_median_s": median(latencies_s) if latencies_s else None,
        "latency_max_s": max(latencies_s, default=None),
        "makespan_s": simulated.makespan_s,
        "bytes": sum(simulated.sent_bytes.values()),
        "labels": len(latencies_s),
    }


def _results(outcome: Outcome) -> dict[str, Any]:
    """What the querying parties got: means over them, and the largest epsilon."""
    queriers = range(outcome.scenario.parties.queriers)
    right: list[bool] = []
    for querier in queriers:
        queries, labels = outcome.simulated.bought(querier)
        right += list(outcome.dataset.y[outcome.asked[querier][queries]] == labels)
    return {
        "label_accuracy": float(np.mean(right)) if right else None,
        "accuracy_before": float(np.mean([average(seeds).accuracy for seeds in outcome.before])),
        "accuracy_after": float(np.mean([average(seeds).accuracy for seeds in outcome.after])),
        "epsilon": max((outcome.ledger.epsilon(querier) or 0.0) for querier in queriers),
    }


def _fastest(rows: Sequence[Mapping[str, Any]], network: str) -> str | None:
    """The backend with the shortest median latency among those that protect anybody; None where there is none."""
    latency_s = {row["name"]: row["networks"][network]["latency_median_s"] for row in rows if row["security"] != "none"}
    there = {name: value for name, value in latency_s.items() if value is not None}
    return min(there, key=there.__getitem__) if there else None
