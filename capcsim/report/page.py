"""report.html: one file with everything in it, readable without a network."""

import base64
from pathlib import Path

import jinja2

from capcsim.files import replacing
from capcsim.record import Record
from capcsim.report.tables import as_run, bought, change, facts, fraction, seconds, size
from capcsim.study.result import read_result

CAPTIONS = {
    "accuracy": "Each querying party's model on samples that nobody trained on, before it asked and after it"
    " retrained on its own data and the labels that it bought. The red mark is the share of bought labels"
    " that are right.",
    "classes": "How right the querying parties' models are on each class, and how many of one party's queries were"
    " of it, by the true labels, which no party knew.",
    "epsilon": "What the labels cost in privacy. The curve is an upper bound for the discrete noise, which looks at no"
    " vote; queries that stayed unanswered cost something besides their labels.",
    "timeline": "One batch with a typical latency. The answering parties work in parallel; the guardian waits"
    " for their shares, and only the querying party opens the label.",
    "utilisation": "The busiest cores and links. Waiting for network latency and for deadlines is in no bar.",
}


def write_page(record: Record, figures: list[Path]) -> Path:
    """Write report.html with the figures inside; raises HostError."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("capcsim.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(bought=bought, seconds=seconds, size=size, fraction=fraction, change=change)
    found = read_result(record)
    html = environment.get_template("report.html").render(
        summary=found,
        manifest=record.manifest,
        as_run=as_run(found),
        facts=facts(found),
        figures=[(path.stem, CAPTIONS[path.stem], base64.b64encode(path.read_bytes()).decode()) for path in figures],
    )
    path = record.folder / "report.html"
    with replacing(path) as fresh:
        fresh.write_text(html, encoding="utf-8")
    return path
