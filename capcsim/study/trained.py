"""The first stage: every party's data and models. Networks are kept on disk by the content that they came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from capcsim.backend import Backend
from capcsim.errors import ScenarioError, UnsupportedModel
from capcsim.learning.assumed import random_models
from capcsim.learning.datasets import load_dataset
from capcsim.learning.ensemble import Bought, Ensemble, PartyModels
from capcsim.learning.samples import Dataset
from capcsim.scenario import NoData, Scenario
from capcsim.study.means import Means, content_key


@dataclass(frozen=True)
class Trained:
    """Parties with their models; `changed` are the voters that have others than in the round before."""

    ensemble: Ensemble
    models: PartyModels
    key: str
    changed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Given:
    """What Python hands over besides a scenario: the data set of data.source = 'arrays', own models by their kinds."""

    dataset: Dataset | None = None
    models: Mapping[str, Any] = field(default_factory=dict)


def deal_out(scenario: Scenario, backends: Sequence[Backend], means: Means, given: Given = Given()) -> Ensemble:
    """Read the data and deal them out; what must be said of the data is said.

    Raises ScenarioError, also for a model of the user's own that one of the backends cannot evaluate.
    """
    means.progress.stage("reading the data", 1)
    if isinstance(scenario.data, NoData):
        ensemble = Ensemble.without_data(scenario, scenario.data, given.models)
    else:
        ensemble = Ensemble.of(scenario, given.dataset or load_dataset(scenario.data), given.models)
    for note in ensemble.dataset.notes:
        means.progress.note(f"data: {note}")
    for own in ensemble.own.values():
        tried = own.tried(ensemble.dataset.x.shape[1:], ensemble.dataset.classes)
        for backend in backends:
            try:
                backend.prepare(tried.estimator, seed=0)
            except UnsupportedModel as error:
                raise ScenarioError("models.kinds", own.kind, str(error)) from error
    return ensemble


def train(ensemble: Ensemble, means: Means) -> Trained:
    """Every shard's model, and each querying party's own model on all that it has; random ones without data."""
    if isinstance(ensemble.scenario.data, NoData):
        return _untrained(ensemble)
    key = content_key(ensemble.keys(ensemble.tasks()))

    def make() -> tuple[Trained, bool]:
        trainer = means.trainer(ensemble.scenario.models)
        return Trained(ensemble, ensemble.train(trainer), key), trainer.trained > 0

    found = means.memory.value("trained", key, make)
    return replace(found, ensemble=ensemble, models=ensemble.with_own(found.models))


def _untrained(ensemble: Ensemble) -> Trained:
    """Models that learned nothing."""
    models, dataset = ensemble.scenario.models, ensemble.dataset
    kinds = {kind: ensemble.own_digests.get(kind, "") for kind in models.kinds}
    key = content_key(kinds, dataset.shape, dataset.classes, list(models.hidden), models.width, len(ensemble.owners))
    voters = random_models(models, ensemble.owners, dataset, ensemble.own)
    return Trained(ensemble, PartyModels(voters, (), (key,) * len(voters)), key)


def adopt(trained: Trained, bought: Sequence[Bought], means: Means) -> Trained:
    """The querying parties' models retrained on the labels so far."""
    ensemble = trained.ensemble
    key = content_key(trained.key, ensemble.keys([ensemble.retraining(q, bought[q], 0) for q in ensemble.queriers]))

    def make() -> tuple[Trained, bool]:
        trainer = means.trainer(ensemble.scenario.models)
        models, changed = ensemble.adopt(trained.models, bought, trainer)
        return Trained(ensemble, models, key, changed), trainer.trained > 0

    return replace(means.memory.value("trained", key, make), ensemble=ensemble)
