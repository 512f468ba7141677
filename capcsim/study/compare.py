"""`capcsim compare`: one scenario on several backends and networks, with the same data, models, queries and seeds.

Each backend is measured once; its transcripts are replayed on every network. The noise is seeded, so that labels differ
only where a backend differs: what comes out is not for publication, and no budget of a real run is touched.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

from capcsim.backend import Backend
from capcsim.choices import Choice
from capcsim.costs.cache import host, versions
from capcsim.costs.profile import profile
from capcsim.errors import InputError, ScenarioError
from capcsim.learning.ensemble import Ensemble, nothing_bought
from capcsim.protocol.steps import answering
from capcsim.scenario import Network, Scenario, parse_scenario
from capcsim.study.asked import ask
from capcsim.study.books import accountant_of, scratch_books
from capcsim.study.comparison import SCENARIO_NETWORK, BackendRow, Comparison, Times, Votes
from capcsim.study.means import Means
from capcsim.study.metrics import View, value
from capcsim.study.result import FORMER_NAMES
from capcsim.study.simulated import asked_until
from capcsim.study.trained import Given, deal_out, train
from capcsim.study.walk import Walked, load_backend, walk

RESULTS = ("label_accuracy", "vote_agreement", "accuracy_before", "accuracy_after", "epsilon")
"""What the querying parties got."""


def compare(
    scenario: Scenario,
    choices: Sequence[Choice],
    networks: Mapping[str, Network],
    *,
    repeats: int = 5,
    means: Means | None = None,
    given: Given = Given(),  # noqa: B008 (it never changes)
) -> Comparison:
    """One row for each backend; latencies on the scenario's own network and on each of `networks`.

    `repeats` is of the timed steps. Raises a CapcsimError for anything that the user can mend, before any work.
    """
    means = means or Means()
    if not isinstance(repeats, int) or repeats < 1:
        raise InputError(f"repeats = {repeats!r}: a whole number from 1")
    everywhere = {SCENARIO_NETWORK: scenario.network, **networks}
    with ExitStack() as stack:
        backends = [stack.enter_context(closing(load_backend(_with_backend(scenario, choice)))) for choice in choices]
        ensemble = deal_out(_with_backend(scenario, choices[0]), backends, means.named(str(choices[0])), given)
        rows = []
        for choice, backend in zip(choices, backends, strict=True):
            own = replace(ensemble, scenario=_with_backend(scenario, choice))
            rows.append(_Row(own, backend, choice, means.named(str(choice))).told(everywhere, repeats))
            backend.close()
    return Comparison(
        scenario=scenario.title_as_run,
        parties=scenario.parties.count,
        voters=scenario.voters,
        queriers=scenario.parties.queriers,
        labels_wanted=sum(map(scenario.wanted, range(scenario.parties.queriers))),
        data=ensemble.dataset.name,
        data_note=ensemble.dataset.note,
        seed=scenario.seed,
        batch=scenario.queries.batch,
        noise="simulation",
        networks=everywhere,
        backends=tuple(rows),
        stages=means.memory.stages(),
        fastest_protected={name: _fastest(rows, name) for name in everywhere},
        host=host(),
        versions=versions(),
    )


def _with_backend(scenario: Scenario, choice: Choice) -> Scenario:
    tree = scenario.model_dump()
    tree["protocol"] |= {"backend": choice.backend, "options": choice.options}
    tree["privacy"] |= {"noise": "simulation", "book": "record"}
    return parse_scenario(tree)


@dataclass(frozen=True)
class _Row:
    """All about one backend."""

    ensemble: Ensemble
    backend: Backend
    choice: Choice
    means: Means

    def told(self, networks: Mapping[str, Network], repeats: int) -> BackendRow:
        """Its costs by the clock, then what happens on each network; labels are those on the first."""
        profiled = self._profile(repeats)
        walks = {name: self._walk(name, network) for name, network in networks.items()}
        first = walks[SCENARIO_NETWORK]
        found, measured = self.backend.capabilities, first.priced.measured
        agreement = measured.agreement + measured.earlier
        return BackendRow(
            name=str(self.choice),
            backend=self.choice.backend,
            options=self.choice.options,
            security=found.security,
            exact=found.exact,
            leaks={role.value: what for role, what in found.leaks.items()},
            argmax=found.argmax,
            release=found.release,
            **{key: profiled[key] for key in ("model", "steps", "total", "setup", "details")},
            networks={name: times(_everybody(walked)) for name, walked in walks.items()},
            agreement=Votes(
                votes=agreement.votes,
                disagreements=agreement.disagreements,
                upper_bound_95=agreement.upper_bound(),
                float32=profiled["agreement_float32"],
            ),
            **{name: value(name, _everybody(first)) for name in RESULTS},
        )

    def _walk(self, name: str, network: Network) -> Walked:
        """The whole way on one network. Where a deadline makes labels depend on it, later rounds do too."""
        there = replace(self.ensemble, scenario=self.ensemble.scenario.on_network(network))
        with scratch_books(there.scenario) as books:
            return walk(there, self.backend, books, self.means.named(name))

    def _profile(self, repeats: int) -> dict[str, Any]:
        """Every step by the clock, with the first party's real queries and the model of a party that answers it."""
        scenario, means = self.ensemble.scenario, self.means
        trained, nothing = train(self.ensemble, means), [nothing_bought() for _ in self.ensemble.queriers]
        until = asked_until(scenario, accountant_of(scenario), 0)
        asked = ask(trained, self.backend, None, nothing, until, 0, means)
        if not until[0]:
            allowed = "enough for one label; raise it, or the noise"
            raise ScenarioError("privacy.epsilon", scenario.privacy.epsilon, allowed)
        voter, kinds = answering(asked.voters, 0)[0], scenario.models.kinds
        return profile(
            self.backend,
            trained.models.voters[voter.index].estimator,
            kinds[voter.party % len(kinds)],
            batch=min(scenario.queries.batch, until[0]),
            repeats=repeats,
            inputs=self.ensemble.samples(0, asked.rows[0]),
            advance=means.progress.stage("timing", repeats + 1),  # type: ignore[arg-type]
        )


def times(view: View) -> Times:
    """Of the queries of a view."""
    return Times(**{name: value(FORMER_NAMES.get(name, name), view) for name in Times.model_fields})


def _everybody(walked: Walked) -> View:
    return View(walked, range(walked.scenario.parties.queriers))


def _fastest(rows: Sequence[BackendRow], network: str) -> str | None:
    """The backend with the shortest median latency among those that protect anybody; None where there is none."""
    latency_s = {row.name: row.networks[network].latency_median_s for row in rows if row.security != "none"}
    there = {name: value for name, value in latency_s.items() if value is not None}
    return min(there, key=there.__getitem__) if there else None
