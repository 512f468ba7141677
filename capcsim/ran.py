"""A run or a comparison in Python's hands: tables as pandas, figures, a notebook's view."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capcsim.errors import InputError, closest
from capcsim.record import Record
from capcsim.report.layout import as_html, printed
from capcsim.study.comparison import Comparison as Compared
from capcsim.study.result import Result, read_result

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Run:
    """A complete run: what it told, and its record.

    `Run(folder)` opens one that is on disk. Raises RecordError for one that did not end.
    """

    def __init__(self, folder: str | Path) -> None:
        if not isinstance(folder, str | PathLike):
            raise InputError(f"a run's directory; this is {folder!r}")
        self._record = Record.load(Path(folder))
        self._summary = read_result(self._record)

    @property
    def folder(self) -> Path:
        """The run's directory."""
        return self._record.folder

    @property
    def summary(self) -> Result:
        """All that `capcsim run --json` prints, as one typed value."""
        return self._summary

    @property
    def metrics(self) -> "pd.DataFrame":
        """One row a metric: value, low, high, basis, unit; docs/metrics.md defines them."""
        import pandas as pd

        told = {name: figure.model_dump() for name, figure in self.summary.metrics.items()}
        # As objects: a byte is no float because an accuracy beside it is one.
        return pd.DataFrame.from_dict(told, orient="index", dtype=object).rename_axis("metric")

    @property
    def queriers(self) -> "pd.DataFrame":
        """One row a querying party."""
        import pandas as pd

        return pd.DataFrame([row.model_dump() for row in self.summary.queriers]).set_index("querier")

    @property
    def queries(self) -> "pd.DataFrame":
        """One row a query: its label, the true one, who was counted, when it was sent and answered."""
        return self._table("queries")

    @property
    def votes(self) -> "pd.DataFrame":
        """One row a query and voter; in the protocol nobody sees these."""
        return self._table("votes")

    @property
    def messages(self) -> "pd.DataFrame":
        """One row a simulated message."""
        return self._table("messages")

    @property
    def compute(self) -> "pd.DataFrame":
        """One row a stretch of simulated work."""
        return self._table("compute")

    def figure(self, name: str) -> "Figure":
        """A figure of the report by its name: accuracy, classes, epsilon, timeline or utilisation."""
        import matplotlib as mpl

        from capcsim.report.figures import FIGURES, STYLE

        if name not in FIGURES:
            raise InputError(f"figure {name!r}: choose one of {', '.join(FIGURES)}{closest(str(name), FIGURES)}")
        with mpl.rc_context(STYLE):
            return FIGURES[name](self._record)

    def report(self) -> Path:
        """Write figures, report.html and trace.json into the run's directory; the page's path."""
        from capcsim.report.whole import write_report

        return write_report(self._record)

    def _table(self, name: str) -> "pd.DataFrame":
        return self._record.read_table(name).to_pandas()

    def __repr__(self) -> str:
        return f"<Run {self.summary.title!r} in {self.folder}>"

    def __str__(self) -> str:
        from capcsim.report.tables import summary

        return printed(summary(self.summary))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from capcsim.report.tables import summary

        return as_html(summary(self.summary))


class Comparison(Mapping[str, Any]):
    """What `capcsim compare --json` prints, as a mapping; its rows as a table, and its figure."""

    def __init__(self, summary: Compared) -> None:
        self.summary = summary
        self._told: dict[str, Any] = summary.model_dump(mode="json")

    def __getitem__(self, key: str) -> Any:
        return self._told[key]

    def __iter__(self) -> Any:
        return iter(self._told)

    def __len__(self) -> int:
        return len(self._told)

    @property
    def backends(self) -> "pd.DataFrame":
        """One row a backend and network: times, bytes, labels, and what the querying parties got."""
        import pandas as pd

        kept = {"name", "security", "exact", "label_accuracy", "vote_agreement", "accuracy_before", "accuracy_after"}
        rows = [
            {**row.model_dump(include=kept | {"epsilon"}), "network": name, **times.model_dump()}
            for row in self.summary.backends
            for name, times in row.networks.items()
        ]
        return pd.DataFrame(rows).set_index(["name", "network"])

    def figure(self) -> "Figure":
        """The simulated time to a label by network."""
        from capcsim.report.comparison import comparison

        return comparison(self.summary)

    def __repr__(self) -> str:
        names = ", ".join(row.name for row in self.summary.backends)
        return f"<Comparison of {names} in {self.summary.scenario!r}>"

    def __str__(self) -> str:
        from capcsim.report.comparison import table

        return printed(table(self.summary))

    def _repr_html_(self) -> str:
        from capcsim.report.comparison import table

        return as_html(table(self.summary))
