"""All that a run's report is made of."""

from collections.abc import Callable
from pathlib import Path

from capcsim.record import Record
from capcsim.report.figures import FIGURES, draw_figures
from capcsim.report.page import write_page
from capcsim.report.trace import write_trace


def write_report(record: Record, begin: Callable[[str, int], Callable[[int], None]] | None = None) -> Path:
    """Write figures, report.html and trace.json into the run's directory; the page's path. Raises HostError.

    `begin` is told of each stage and its steps, and gives what counts them.
    """
    begin = begin or (lambda *_: lambda _: None)
    paths = draw_figures(record, begin("drawing figures", len(FIGURES)))
    begin("writing report.html and trace.json", 1)
    page = write_page(record, paths)
    write_trace(record)
    return page
