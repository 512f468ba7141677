"""The tables of a run's record, in columns; `votes` is written with the transcripts, when the votes are cast."""

from collections.abc import Iterator
from typing import Any

from capcsim.learning.metrics import average
from capcsim.record import TABLES, Record
from capcsim.study.metrics import View
from capcsim.study.summing_up import figures, gaps
from capcsim.study.walk import Walked


def write_tables(record: Record, walked: Walked) -> None:
    """Tables `queries`, `compute`, `messages`, `metrics`."""
    record.write_table("queries", _queries(walked))
    record.write_chunks("compute", walked.simulated.log.compute())
    record.write_chunks("messages", walked.simulated.log.messages())
    metrics = list(_metrics(walked))
    record.write_table("metrics", {name: [row[i] for row in metrics] for i, name in enumerate(TABLES["metrics"])})


def _queries(walked: Walked) -> dict[str, list[Any]]:
    view = View(walked, range(walked.scenario.parties.queriers))
    told = ("querier", "query", "batch", "label", "submitted_s", "labelled_s", "why")
    return {
        **{name: [getattr(row, name) for row in view.rows] for name in told},
        "sample": [int(walked.asked.rows[row.querier][row.query]) for row in view.rows],
        "true_label": [view.truth(row) if view.learns else -1 for row in view.rows],
        "counted": [list(row.counted) for row in view.rows],
    }


def _metrics(walked: Walked) -> Iterator[tuple[int, str, str, int, float]]:
    """(querier, moment, metric, class, value): models before and after, then the metrics of the run.

    Class is -1 for a metric over all classes, querier -1 for one over all querying parties.
    """
    for moment, qualities in (("before", walked.judged.before), ("after", walked.judged.after)):
        for querier, by_seed in enumerate(qualities):
            if not by_seed:
                continue
            found = average(by_seed)
            yield querier, moment, "accuracy", -1, found.accuracy
            yield querier, moment, "balanced_accuracy", -1, found.balanced_accuracy
            for label, accuracy in enumerate(found.per_class):
                yield querier, moment, "class_accuracy", label, accuracy
            apart = gaps(found)
            for name, gap in apart.model_dump().items() if apart else ():
                yield querier, moment, name, -1, gap
            for seed, each in enumerate(by_seed):
                yield querier, moment, f"accuracy, seed {seed}", -1, each.accuracy
    everybody = range(walked.scenario.parties.queriers)
    for querier, view in [(-1, View(walked, everybody)), *((q, View(walked, (q,))) for q in everybody)]:
        for name, figure in figures(view).items():
            if figure.value is not None:
                yield querier, "run", name, -1, float(figure.value)
