"""What held a message up: the link that is full, or that it has for itself, or its connection's window."""

from typing import Any

import pytest

from capcsim.simulation.engine.engine import Engine, Node
from capcsim.simulation.engine.graphs import MESSAGE
from capcsim.simulation.engine.records import NONE


def held_up(links_bps: list[float], routes: list[list[int]], windows_bps: dict[int, float] | None = None) -> list[Any]:
    """A message of 1000 bytes over each route, all at once: the link that held each up."""
    rows: list[Any] = []
    engine = Engine(rows.extend, compile_=False)
    links = [engine.link(bps) for bps in links_bps]
    machines = [engine.machine(engine.pool(1), 1.0) for _ in range(2)]
    template = engine.template([Node(MESSAGE, 0, 1, 1000.0)])
    for number, route in enumerate(routes):
        place = engine.place(number, 0, dict(enumerate(machines)))
        connection = engine.connection([links[link] for link in route], 0.0)
        engine.connect(place, 0, 1, connection)
        if number in (windows_bps or {}):
            engine.set_window(connection, (windows_bps or {})[number])
        engine.start(template, place, 0)
    engine.run(float("inf"))
    engine.flush()
    found = {int(row["place"]): int(row["link"]) for row in rows}
    return [found[number] for number in range(len(routes))]


@pytest.mark.parametrize(("links_bps", "narrowest"), [([1e6, 1e9], 0), ([1e9, 1e6], 1), ([1e9, 1e6, 1e7, 1e5], 3)])
def test_a_message_alone_is_held_up_by_the_narrowest_link(links_bps: list[float], narrowest: int) -> None:
    assert held_up(links_bps, [list(range(len(links_bps)))]) == [narrowest]


def test_messages_that_share_a_link_are_held_up_by_it() -> None:
    # Three over link 3, each with a line of its own that is wider than a third of it.
    assert held_up([5e5, 5e5, 5e5, 1e6], [[0, 3], [1, 3], [2, 3]]) == [3, 3, 3]


def test_one_with_a_narrower_line_is_held_up_by_that() -> None:
    assert held_up([1e5, 1e9, 1e9, 1e6], [[0, 3], [1, 3], [2, 3]]) == [0, 3, 3]


def test_a_link_that_is_wide_enough_for_all_holds_nobody_up() -> None:
    assert held_up([1e5, 1e5, 1e9], [[0, 2], [1, 2]]) == [0, 1]


def test_a_window_is_no_link() -> None:
    assert held_up([1e6], [[0]], {0: 1e3}) == [NONE]
    assert held_up([1e6], [[0], [0]], {0: 1e5}) == [NONE, 0]
