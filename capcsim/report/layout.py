"""Tables on terminals of any width: no number is ever cut."""

from collections.abc import Iterator, Sequence
from html import escape
from io import StringIO
from itertools import zip_longest
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

PRINTED_WIDTH = 110
GAPS = (1, 0)
"""Blanks between columns besides the rule's own, from comfortable to narrow."""


class FittingTable(Table):
    """A table that puts its columns closer where the terminal is narrow; where that is not enough, each row becomes
    a few lines, "column  value".

    Text wraps between words; a right-justified column does not wrap, unless it is told to.
    """

    def add_column(self, header: RenderableType = "", *arguments: Any, **settings: Any) -> None:
        """As rich's, but that a number and its unit stay on one line."""
        settings.setdefault("no_wrap", settings.get("justify") == "right")
        super().add_column(header, *arguments, **{"overflow": "fold", **settings})

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        narrowest = [_width(console, column, wrapped=not column.no_wrap) for column in self.columns]
        widest = [_width(console, column, wrapped=False) for column in self.columns]
        for gap in GAPS:
            room = options.max_width - (len(self.columns) - 1) * (1 + gap)
            if sum(narrowest) <= room:
                self.padding = (0, gap, 0, 0)
                for column, width in zip(self.columns, _shared(room, narrowest, widest), strict=True):
                    column.width = width
                yield from super().__rich_console__(console, options)
                return
        yield from self._lines(console)

    def _lines(self, console: Console) -> Iterator[RenderableType]:
        """Each row by itself: its first cell, and under it the other columns' names and values."""
        if self.title:
            yield _text(console, self.title)
        names = [_text(console, column.header).plain for column in self.columns]
        indent = max(len(name) for name in names) + 2
        for row, cells in zip(self.rows, zip(*(column.cells for column in self.columns), strict=True), strict=True):
            head, *values = [_text(console, cell).plain for cell in cells]
            yield Text(head or "-", style=str(row.style or "bold"))
            for name, value in zip(names[1:], values, strict=True):
                for label, line in zip_longest([name], value.splitlines(), fillvalue=""):
                    if line:
                        yield Padding(Text(f"{label:<{indent}}{line}", overflow="fold"), (0, 0, 0, 2), expand=False)
            if row.end_section:
                yield Text("")


def new_table(title: str | None = None) -> FittingTable:
    """An empty table in the style that all of ours have."""
    return FittingTable(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


def printed(shown: RenderableType) -> str:
    """As on a plain terminal of PRINTED_WIDTH columns, wherever this runs."""
    told = StringIO()
    console = Console(file=told, width=PRINTED_WIDTH, no_color=True, force_terminal=False, force_jupyter=False)
    console.print(shown, highlight=False)
    return told.getvalue().rstrip()


def as_html(shown: RenderableType) -> str:
    """The same in a notebook, in its own colours."""
    return f'<pre style="line-height:1.35">{escape(printed(shown))}</pre>'


def _text(console: Console, content: RenderableType) -> Text:
    return content if isinstance(content, Text) else console.render_str(str(content))


def _width(console: Console, column: Column, *, wrapped: bool) -> int:
    """What a column needs: with its words wrapped, or without."""
    texts = [_text(console, cell) for cell in (column.header, *column.cells)]
    found = [Measurement.get(console, console.options.update(width=1 << 16), text) for text in texts]
    return max(one.minimum if wrapped else one.maximum for one in found)


def _shared(room: int, narrowest: Sequence[int], widest: Sequence[int]) -> list[int]:
    """Widths of columns: what they want, but the widest ones are cut down to one width where there is less room."""
    bounds = list(zip(narrowest, widest, strict=True))
    caps = range(max(widest), 0, -1)
    fitting = ([max(least, min(cap, most)) for least, most in bounds] for cap in caps)
    return next(widths for widths in fitting if sum(widths) <= room)
