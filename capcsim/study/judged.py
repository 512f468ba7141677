"""The last stage: what the labels have taught the querying parties, and what they are compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from capcsim.learning.baselines import Baseline, baseline_steps, compare
from capcsim.learning.ensemble import Bought, nothing_bought
from capcsim.learning.metrics import Quality
from capcsim.learning.tasks import TrainingTask
from capcsim.scenario import NoData
from capcsim.study.means import Means, content_key
from capcsim.study.trained import Trained


@dataclass(frozen=True)
class Judged:
    """`before[q]` and `after[q]` have one quality for each seed with which querying party q's model was trained."""

    before: Sequence[Sequence[Quality]]
    after: Sequence[Sequence[Quality]]
    baselines: Mapping[str, Baseline]


def judge(trained: Trained, bought: Sequence[Bought], means: Means) -> Judged:
    """Retrain on the bought labels, and without any; nothing is judged without data."""
    ensemble = trained.ensemble
    if isinstance(ensemble.scenario.data, NoData):
        return Judged([[] for _ in ensemble.queriers], [[] for _ in ensemble.queriers], {})
    models, seeds = ensemble.scenario.models, range(ensemble.scenario.models.retrainings)
    tasks = [ensemble.retraining(q, bought[q], seed) for q in ensemble.queriers for seed in seeds]
    baselines = (models.baselines, models.fedavg_rounds, ensemble.keys(_of_parties(trained)))
    data, parts = ensemble.dataset, ensemble.parts.evaluations
    protected = data.y if data.protected is None else data.protected
    evaluations = [(ensemble.samples(q, rows), data.y[rows], protected[rows]) for q, rows in enumerate(parts)]
    key = content_key(ensemble.keys(tasks), evaluations, baselines, ensemble.scenario.seed)

    def make() -> tuple[Judged, bool]:
        trainer = means.trainer(models)
        nothing = [nothing_bought() for _ in ensemble.queriers]
        before = ensemble.retrain(nothing, trainer, "training for comparison")
        return Judged(before, ensemble.retrain(bought, trainer), _baselines(trained, means)), trainer.trained > 0

    return means.memory.value("judged", key, make)


def _of_parties(trained: Trained) -> list[TrainingTask]:
    """What the baselines train on, where there are any."""
    scenario = trained.ensemble.scenario
    return (
        [trained.ensemble.task(party) for party in range(scenario.parties.count)] if scenario.models.baselines else []
    )


def _baselines(trained: Trained, means: Means) -> dict[str, Baseline]:
    ensemble = trained.ensemble
    models = ensemble.scenario.models
    advance = means.progress.stage("baselines", baseline_steps(models)) if models.baselines else lambda _: None
    return compare(ensemble, models, ensemble.seeds, advance, workers=means.workers, engine=means.engine)
