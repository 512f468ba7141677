"""The engine: by hand where the times are known, and against a slow reference in random worlds."""

from collections.abc import Sequence
from math import ceil, inf
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capcsim.simulation.engine.engine import Engine, Node, Rows
from capcsim.simulation.engine.graphs import GATE, MESSAGE, WORK
from capcsim.simulation.engine.records import NONE
from tests.simulation.engine.reference import Reference, Row
from tests.simulation.engine.worlds import World, lines, play, sessions


class Plain(Engine):
    """An engine that keeps its rows."""

    def __init__(self, *, compile_: bool = False) -> None:
        self._rows: list[Row] = []
        super().__init__(self._note, compile_=compile_)

    def _note(self, rows: Rows) -> None:
        self._rows += [Row(*row) for row in rows[list(Row._fields)].tolist()]

    @property
    def rows(self) -> list[Row]:
        self.flush()
        return self._rows

    def carried(self, links: int) -> list[float]:
        return self.state.links["bits"][:links].tolist()

    def worked(self, cores: int) -> list[float]:
        return self.state.cores["busy_s"][:cores].tolist()


Simulated = Plain | Reference


@pytest.fixture(params=[Plain, Reference])
def engine(request: pytest.FixtureRequest) -> Simulated:
    return request.param()


# -- random worlds -----------------------------------------------------------------------------------------------------


@st.composite
def worlds(draw: st.DrawFn) -> World:
    random = Random(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from([sessions, lines]))
    return kind(lambda low, high: draw(st.integers(low, high)), random)


def named(rows: Sequence[Row]) -> dict[tuple[int, ...], tuple]:
    """By place, batch, template and node: core, cut, the names of the rows `by` and `waited`; then the times."""
    names = {NONE: None} | {number: row[:4] for number, row in enumerate(rows)}
    return {row[:4]: ((row.core, row.cut, names[row.by], names[row.waited]), row[-4:]) for row in rows}


def close(value: object) -> object:
    return pytest.approx(value, rel=1e-9, abs=1e-9)


def agree(world: World) -> None:
    engine, reference = Plain(), Reference()
    told, expected = play(engine, world), play(reference, world)
    rows, expected_rows = named(engine.rows), named(reference.rows)
    assert len(rows) == len(engine.rows)
    assert {name: row[0] for name, row in rows.items()} == {name: row[0] for name, row in expected_rows.items()}
    for name, row in rows.items():
        assert row[1] == close(expected_rows[name][1]), name
    assert [opened for _, opened in told] == [opened for _, opened in expected]
    assert [at_s for at_s, _ in told] == close([at_s for at_s, _ in expected])
    assert engine.carried(len(reference.bits)) == close(reference.bits)
    assert engine.worked(len(reference.cores)) == close([core.busy_s for core in reference.cores])
    assert engine.busy == bool(reference.graphs)


SLOWLY = (HealthCheck.too_slow, HealthCheck.data_too_large)


@settings(max_examples=150, deadline=None, suppress_health_check=SLOWLY)
@given(worlds())
def test_a_random_world_is_as_the_rules_say(world: World) -> None:
    agree(world)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=SLOWLY)
@given(worlds())
def test_many_random_worlds_are_as_the_rules_say(world: World) -> None:
    agree(world)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [sessions, lines])
def test_compiled_and_plain_give_the_same_to_the_last_bit(kind: type) -> None:
    for seed in range(40):
        random = Random(seed)
        world = kind(random.randint, random)
        plain, compiled = Plain(), Plain(compile_=True)
        assert play(compiled, world) == play(plain, world)
        assert compiled.rows == plain.rows
        assert compiled.carried(world.links) == plain.carried(world.links)
        assert compiled.worked(9) == plain.worked(9)


# -- messages ----------------------------------------------------------------------------------------------------------


def connected(engine: Simulated, links: Sequence[int], latency_s: float = 0.0) -> tuple[int, int]:
    """A place where role 0 sends to role 1, and the connection."""
    connection = engine.connection(links, latency_s)
    place = engine.place(0, connection, {})
    engine.connect(place, 0, 1, connection)
    return place, connection


def send(engine: Simulated, place: int, *bits: float, batch: int = 0) -> None:
    engine.start(engine.template([Node(MESSAGE, 0, 1, amount / 8.0) for amount in bits]), place, batch)


def finished(engine: Simulated) -> list[Row]:
    """All rows, by place, batch and node."""
    while engine.run(inf):
        pass
    return sorted(engine.rows)


@pytest.mark.parametrize(
    ("links", "window_bps", "slowest_bps"),
    [((1e6,), inf, 1e6), ((3e6, 7e5, 2e6, 1e6), inf, 7e5), ((1e6, 2e6), 3e5, 3e5), ((1e6,), 2e6, 1e6), ((), 2e6, 2e6)],
)
@pytest.mark.parametrize("latency_s", [0.0, 0.03])
def test_a_message_alone_takes_the_latency_and_its_bits_over_what_is_narrowest(
    engine: Simulated, links: Sequence[float], window_bps: float, slowest_bps: float, latency_s: float
) -> None:
    place, connection = connected(engine, [engine.link(bps) for bps in links], latency_s)
    engine.set_window(connection, window_bps)
    send(engine, place, 12345.0)
    [row] = finished(engine)
    assert row == Row(
        place, 0, 0, 0, NONE, 0, NONE, NONE, 0.0, 0.0, 12345 / slowest_bps + latency_s, 12345 / slowest_bps
    )


def test_a_message_over_no_link_takes_the_latency(engine: Simulated) -> None:
    place, _ = connected(engine, [], 0.5)
    send(engine, place, 1e9)
    assert finished(engine)[0].end_s == 0.5


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 10, 30])
def test_equal_messages_share_a_link_evenly(engine: Simulated, count: int) -> None:
    link = engine.link(1e6)
    for _ in range(count):
        place, _ = connected(engine, [engine.link(5e6), link], 0.01)
        send(engine, place, 1e5)
    assert [row.end_s for row in finished(engine)] == close([count * 0.1 + 0.01] * count)


@pytest.mark.parametrize(
    ("links", "flows"),
    [
        pytest.param((1, 1), [((0, 1), inf, 1 / 2), ((0,), inf, 1 / 2), ((1,), inf, 1 / 2)], id="one over both"),
        pytest.param((1, 2), [((0, 1), inf, 1 / 2), ((0,), inf, 1 / 2), ((1,), inf, 3 / 2)], id="unequal links"),
        pytest.param((1, 9), [((0, 1), inf, 1), ((1,), inf, 4), ((1,), inf, 4)], id="what one cannot use"),
        pytest.param((9,), [((0,), 1, 1), ((0,), inf, 4), ((0,), inf, 4)], id="one window"),
        pytest.param((9,), [((0,), 1, 1), ((0,), 2, 2), ((0,), 8, 6)], id="a window too wide to matter"),
        pytest.param((9,), [((0,), 3, 3), ((0,), 3, 3), ((0,), 3, 3)], id="windows that fill a link"),
        pytest.param((9,), [((0,), 1, 1), ((0,), 2, 2), ((0,), 3, 3)], id="windows that do not fill it"),
        pytest.param((9,), [((0,), 5, 9 / 2), ((0,), 6, 9 / 2)], id="windows that would overfill it"),
        pytest.param((4, 6, 9), [((0,), inf, 2), ((0, 1), inf, 2), ((1, 2), inf, 4), ((2,), inf, 5)], id="a chain"),
        pytest.param(
            (10, 6),
            # As the window leaves more of the first link, the long flow takes more of the second.
            [((0,), 1, 1), ((0, 1), inf, 3), ((0,), inf, 6), ((1,), inf, 3)],
            id="a window felt one link further",
        ),
    ],
)
def test_rates_are_max_min_fair(
    engine: Simulated, links: Sequence[float], flows: Sequence[tuple[Sequence[int], float, float]]
) -> None:
    for bps in links:
        engine.link(bps)
    for route, window_bps, rate_bps in flows:
        place, connection = connected(engine, route)
        engine.set_window(connection, window_bps)
        send(engine, place, 10.0 * rate_bps)
    assert [row.end_s for row in finished(engine)] == close([10.0] * len(flows))


def test_those_that_go_on_have_what_one_that_ends_had(engine: Simulated) -> None:
    link = engine.link(4.0)
    for bits in (2.0, 5.0, 9.0):
        send(engine, connected(engine, [link])[0], bits)
    # At 4/3 each until 1.5; then at 2 until 3 (5 - 2 = 3 bits); then at 4 for what is left of 9.
    assert [row.end_s for row in finished(engine)] == close([1.5, 3.0, 4.0])


def test_messages_of_a_connection_go_in_order(engine: Simulated) -> None:
    place, _ = connected(engine, [engine.link(1.0)], 0.5)
    send(engine, place, 3.0, 1.0, 2.0)
    rows = finished(engine)
    assert [(row.start_s, row.end_s, row.busy_s) for row in rows] == [(0, 3.5, 3), (3, 4.5, 1), (4, 6.5, 2)]
    assert [row.waited for row in rows] == [NONE, 0, 1]


def test_messages_of_two_pairs_share_a_connection_in_order(engine: Simulated) -> None:
    place, connection = connected(engine, [engine.link(1.0)])
    other = engine.place(0, 7, {})
    engine.connect(other, 1, 0, connection)
    engine.start(engine.template([Node(MESSAGE, 1, 0, 0.25)]), other, 0)
    send(engine, place, 3.0, batch=1)
    assert [(row.place, row.end_s) for row in finished(engine)] == [(place, 5.0), (other, 2.0)]


def test_without_a_byte_a_message_passes_the_queue(engine: Simulated) -> None:
    place, _ = connected(engine, [engine.link(1.0)], 0.5)
    send(engine, place, 3.0, 0.0, 2.0)
    rows = finished(engine)
    assert [row.end_s for row in rows] == [3.5, 0.5, 5.5]
    assert [row.waited for row in rows] == [NONE, NONE, 1], "the first is the second row"


def test_what_unconnected_roles_send_is_there_at_once(engine: Simulated) -> None:
    place, _ = connected(engine, [engine.link(1.0)])
    engine.start(engine.template([Node(MESSAGE, 1, 0, 1e9), Node(MESSAGE, 0, 1, 1.0, (0,))]), place, 0)
    assert [row.end_s for row in finished(engine)] == [0.0, 8.0]


def test_a_link_that_is_cut_holds_messages_up(engine: Simulated) -> None:
    link = engine.link(2.0)
    for bits in (4.0, 6.0):
        send(engine, connected(engine, [link])[0], bits)
    engine.run(1.0)
    engine.set_capacity(link, 0.0)
    engine.run(11.0)
    engine.set_capacity(link, 4.0)
    assert [row.end_s for row in finished(engine)] == [12.5, 13.0]
    engine.set_capacity(link, 0.0)
    assert engine.run(20.0) == []
    send(engine, 0, 4.0, batch=1)
    engine.run(30.0)
    engine.set_capacity(link, 1.0)
    assert max(row.end_s for row in finished(engine)) == 34.0


@pytest.mark.parametrize("bps", [3.0, 1.0])
def test_a_link_can_get_too_narrow_for_what_goes_over_it(engine: Simulated, bps: float) -> None:
    shared = engine.link(100.0)
    for own_bps in (1.0, 4.0):
        send(engine, connected(engine, [engine.link(own_bps), shared])[0], 10.0 * own_bps)
    engine.run(5.0)
    engine.set_capacity(shared, bps)
    # 5 and 20 bits are left: at 1 and 2 of 3 bit/s, then at 3; or at 1/2 each of 1 bit/s, then at 1.
    assert [row.end_s for row in finished(engine)] == close(
        [10.0, 5.0 + 5.0 + 10.0 / 3] if bps == 3.0 else [15.0, 30.0]
    )


def test_a_window_can_change_under_a_message(engine: Simulated) -> None:
    link = engine.link(4.0)
    places = [connected(engine, [link]) for _ in range(2)]
    for place, _ in places:
        send(engine, place, 8.0)
    engine.run(2.0)
    engine.set_window(places[0][1], 1.0)
    engine.run(3.0)
    engine.set_window(places[0][1], inf)
    # 4 bits each at 2.0; 3 and 1 at 3.0; then 2 bit/s each until 3.5, and 4 for the 2 that are left.
    assert [row.end_s for row in finished(engine)] == [4.0, 3.5]


@pytest.mark.parametrize("other_bits", [3.0, 100.0])
def test_the_next_message_follows_one_that_is_broken_off(engine: Simulated, other_bits: float) -> None:
    link = engine.link(2.0)
    place, other = connected(engine, [link])[0], connected(engine, [link])[0]
    send(engine, place, 100.0, 50.0)
    send(engine, place, 1.0, batch=1)
    send(engine, other, other_bits)
    engine.run(1.0)
    engine.abort(place, 0)
    broken, following, beside = finished(engine)
    assert (broken.cut, broken.node, broken.end_s, broken.busy_s) == (1, 0, 1.0, 1.0)
    assert (following.cut, following.start_s, following.end_s) == (0, 1.0, 2.0)
    assert following.waited == min(range(3), key=lambda number: engine.rows[number].end_s), "the row broken off"
    assert beside.end_s == 2.0 + (other_bits - 2.0) / 2.0
    carried = engine.carried(1)[0] if isinstance(engine, Plain) else engine.bits[0]
    assert carried == close(1.0 + 1.0 + other_bits)


def test_what_is_on_its_way_when_its_graph_is_aborted_does_not_arrive(engine: Simulated) -> None:
    place, _ = connected(engine, [engine.link(1.0)], 5.0)
    engine.start(engine.template([Node(MESSAGE, 0, 1, 0.25), Node(WORK, 1, amount=0.0, after=(0,))]), place, 0)
    engine.run(3.0)
    engine.abort(place)
    [row] = finished(engine)
    assert (row.node, row.cut) == (0, 0)


# -- work --------------------------------------------------------------------------------------------------------------


def work(engine: Simulated, place: int, *seconds: float, batch: int = 0) -> None:
    engine.start(engine.template([Node(WORK, 0, amount=amount) for amount in seconds]), place, batch)


def at_work(engine: Simulated, cores: int, speed: float = 1.0) -> tuple[int, int]:
    """A place where role 0 works, and the machine."""
    machine = engine.machine(engine.pool(cores), speed)
    return engine.place(0, machine, {0: machine}), machine


@pytest.mark.parametrize(("jobs", "cores"), [(1, 1), (3, 1), (7, 3), (9, 3), (10, 3), (2, 5)])
def test_jobs_take_as_many_turns_as_the_cores_need(engine: Simulated, jobs: int, cores: int) -> None:
    place, _ = at_work(engine, cores)
    work(engine, place, *[2.0] * jobs)
    rows = finished(engine)
    assert [row.end_s for row in rows] == [2.0 * (1 + job // cores) for job in range(jobs)]
    assert rows[-1].end_s == 2.0 * ceil(jobs / cores)
    assert [row.core for row in rows] == [job % cores for job in range(jobs)]


def test_a_machine_twice_as_fast_takes_half_the_time(engine: Simulated) -> None:
    place, _ = at_work(engine, 1, 2.0)
    work(engine, place, 3.0)
    [row] = finished(engine)
    assert (row.end_s, row.busy_s) == (1.5, 1.5)


def test_the_lowest_idle_core_works(engine: Simulated) -> None:
    place, _ = at_work(engine, 4)
    work(engine, place, 9.0, 2.0, 9.0, 1.0)
    engine.run(3.0)
    work(engine, place, 1.0, 1.0, batch=1)
    assert [row.core for row in finished(engine)] == [0, 1, 2, 3, 1, 3]


def test_machines_of_one_pool_share_its_cores_at_their_own_speeds(engine: Simulated) -> None:
    pool = engine.pool(1)
    slow, fast = engine.machine(pool, 1.0), engine.machine(pool, 4.0)
    place = engine.place(0, 0, {0: slow, 1: fast})
    engine.start(engine.template([Node(WORK, 0, amount=4.0), Node(WORK, 1, amount=4.0)]), place, 0)
    assert [(row.end_s, row.core) for row in finished(engine)] == [(4.0, 0), (5.0, 0)]


def test_what_is_ready_begins_by_session_batch_pair_and_node(engine: Simulated) -> None:
    machine = engine.machine(engine.pool(1), 1.0)
    places = [engine.place(session, pair, {0: machine}) for session, pair in ((1, 0), (0, 1), (0, 0))]
    for place in places:
        work(engine, place, 1.0, 1.0, batch=1)
        work(engine, place, 1.0, 1.0, batch=0)
    assert finished(engine)
    order = [row[:2] + row[3:4] for row in engine.rows]
    assert order == [(k, batch, node) for ks in ((2, 1), (0,)) for batch in (0, 1) for k in ks for node in (0, 1)]


def test_work_goes_on_at_a_new_speed(engine: Simulated) -> None:
    place, machine = at_work(engine, 1)
    work(engine, place, 3.0)
    engine.run(1.0)
    engine.set_speed(machine, 4.0)
    [row] = finished(engine)
    assert (row.end_s, row.busy_s) == (1.5, 1.5)


def test_a_machine_that_stands_keeps_its_core_and_begins_nothing(engine: Simulated) -> None:
    place, machine = at_work(engine, 2)
    work(engine, place, 3.0)
    engine.run(1.0)
    engine.set_speed(machine, 0.0)
    work(engine, place, 5.0, batch=1)
    engine.run(11.0)
    engine.set_speed(machine, 2.0)
    running, waiting = finished(engine)
    assert (running.core, running.start_s, running.end_s, running.busy_s) == (0, 0.0, 12.0, 2.0)
    assert (waiting.core, waiting.ready_s, waiting.start_s, waiting.end_s) == (1, 1.0, 11.0, 13.5)


@pytest.mark.parametrize(("goes_on_s", "starts_s"), [(20.0, (20.0, 21.0, 10.0)), (5.0, (11.0, 12.0, 10.0))])
def test_what_waits_for_a_machine_that_stands_comes_last_in_its_order(
    engine: Simulated, goes_on_s: float, starts_s: Sequence[float]
) -> None:
    pool = engine.pool(1)
    standing, other = (engine.place(0, pair, {0: engine.machine(pool, 1.0)}) for pair in range(2))
    work(engine, other, 10.0, batch=0)
    engine.run(1.0)
    work(engine, standing, 1.0, batch=1)
    engine.run(2.0)
    engine.set_speed(0, 0.0)
    work(engine, standing, 1.0, batch=2)
    engine.run(3.0)
    work(engine, other, 1.0, batch=3)
    engine.run(goes_on_s)
    engine.set_speed(0, 1.0)
    starts = {row.batch: row.start_s for row in finished(engine)}
    assert tuple(starts[batch] for batch in (1, 2, 3)) == starts_s


def test_work_of_no_time_needs_no_core(engine: Simulated) -> None:
    place, machine = at_work(engine, 1)
    engine.set_speed(machine, 0.0)
    work(engine, place, 0.0)
    assert finished(engine) == [Row(place, 0, 0, 0, NONE, 0, NONE, NONE, 0.0, 0.0, 0.0, 0.0)]


def test_an_abort_frees_cores_for_others(engine: Simulated) -> None:
    place, _ = at_work(engine, 2)
    work(engine, place, 9.0, 9.0, 9.0)
    work(engine, place, 1.0, 2.0, batch=1)
    engine.run(4.0)
    engine.abort(place, 0)
    rows = finished(engine)
    assert [(row.batch, row.node, row.core, row.cut, row.end_s, row.busy_s) for row in rows] == [
        (0, 0, 0, 1, 4.0, 4.0),
        (0, 1, 1, 1, 4.0, 4.0),
        (1, 0, 0, 0, 5.0, 1.0),
        (1, 1, 1, 0, 6.0, 2.0),
    ]
    assert [engine.rows[row.waited].node for row in rows[2:]] == [0, 1]


@pytest.mark.parametrize("batches", [(0, 0, 0), (0, 1, 2)])
def test_nothing_of_what_is_aborted_begins(engine: Simulated, batches: Sequence[int]) -> None:
    machine = engine.machine(engine.pool(1), 1.0)
    place, _ = connected(engine, [engine.link(1.0)])
    working = engine.place(0, 9, {0: machine})
    for number, batch in enumerate(batches):
        work(engine, working, 9.0 + number, batch=batch)
        send(engine, place, 9.0 + number, batch=batch)
    engine.run(1.0)
    for where in (place, working):
        engine.abort(where, *{batch for batch in batches if not any(batches)})
    assert [(row.place, row.cut, row.end_s) for row in finished(engine)] == [(place, 1, 1.0), (working, 1, 1.0)]
    assert engine.run(inf) == []


def test_a_standing_machine_has_not_worked_on_what_is_aborted(engine: Simulated) -> None:
    place, machine = at_work(engine, 1)
    work(engine, place, 9.0, 9.0)
    engine.run(2.0)
    engine.set_speed(machine, 0.0)
    engine.run(5.0)
    engine.abort(place)
    engine.run(6.0)
    engine.set_speed(machine, 1.0)
    work(engine, place, 1.0, batch=1)
    broken, fresh = finished(engine)
    assert (broken.cut, broken.end_s, broken.busy_s) == (1, 5.0, 2.0)
    assert (fresh.start_s, fresh.end_s) == (6.0, 7.0)


# -- graphs ------------------------------------------------------------------------------------------------------------


def test_rows_name_what_released_them_and_what_they_waited_for(engine: Simulated) -> None:
    pool = engine.pool(1)
    place = engine.place(0, 0, {role: engine.machine(pool, 1.0) for role in range(2)})
    engine.connect(place, 0, 1, engine.connection([engine.link(8.0)], 0.25))
    nodes = [
        Node(WORK, 0, amount=1.0),
        Node(MESSAGE, 0, 1, 1.0, (0,)),
        Node(MESSAGE, 0, 1, 2.0, (0,)),
        Node(WORK, 1, amount=5.0, after=(0,)),
        Node(GATE, after=(1, 2)),
        Node(WORK, 1, amount=1.0, after=(4,)),
    ]
    engine.start(engine.template(nodes), place, 0)
    finished(engine)
    assert [(row.node, row.by, row.waited, row.ready_s, row.start_s, row.end_s) for row in engine.rows] == [
        (0, NONE, NONE, 0.0, 0.0, 1.0),
        (1, 0, NONE, 1.0, 1.0, 2.25),
        (2, 0, 1, 1.0, 2.0, 4.25),
        (3, 0, NONE, 1.0, 1.0, 6.0),
        (5, 2, 3, 4.25, 6.0, 7.0),
    ]


def test_a_graph_can_run_in_many_places(engine: Simulated) -> None:
    template = engine.template([Node(WORK, 0, amount=1.0), Node(WORK, 0, amount=2.0, after=(0, 0))])
    for batch in range(3):
        for place in (at_work(engine, 1)[0] for _ in range(3)):
            engine.start(template, place, batch)
        assert max(row.end_s for row in finished(engine)) == 3.0 * (batch + 1)
    assert len(engine.rows) == 18


def test_a_gate_waits_for_a_latch_and_what_is_before_it(engine: Simulated) -> None:
    place, _ = at_work(engine, 4)
    latch = engine.latches(2)
    engine.set_latches(latch, left=2, tell=True)
    engine.set_latches(latch + 1)
    counting = engine.template([Node(WORK, 0, amount=amount, latch=0) for amount in (1.0, 3.0)])
    waiting = engine.template(
        [Node(WORK, 0, amount=2.0), Node(GATE, after=(0,), held=True), Node(WORK, 0, 0, 1.0, (1,))]
    )
    engine.start(counting, place, 0, latches=latch, done=latch + 1)
    engine.start(waiting, place, 1, waits=[(1, latch)])
    engine.start(waiting, place, 2, waits=[(1, latch + 1)])
    assert engine.run(inf) == [latch]
    assert engine.now_s == 3.0
    engine.start(waiting, place, 3, waits=[(1, latch)])
    rows = finished(engine)
    assert [row.end_s for row in rows if row.node == 2] == [4.0, 4.0, 6.0]
    assert [engine.rows[row.by][1:4] for row in rows if row.node == 2] == [(0, 0, 1), (0, 0, 1), (3, 1, 0)]


def test_a_latch_counts_down_the_next(engine: Simulated) -> None:
    place, _ = at_work(engine, 1)
    first = engine.latches(3)
    engine.set_latches(first, 2, next_=first + 2)
    engine.set_latches(first + 2, left=2, tell=True)
    engine.start(
        engine.template([Node(WORK, 0, amount=amount, latch=k) for k, amount in enumerate((1.0, 2.0))]),
        place,
        0,
        latches=first,
    )
    assert engine.run(inf) == [first + 2]
    assert engine.now_s == 3.0


def test_python_counts_a_latch_down(engine: Simulated) -> None:
    place, _ = at_work(engine, 1)
    latch = engine.latches(1)
    engine.set_latches(latch, left=2, tell=True)
    engine.start(engine.template([Node(WORK, 0, amount=1.0, held=True)]), place, 0, waits=[(0, latch)])
    engine.count_down(latch)
    assert engine.run(5.0) == []
    engine.count_down(latch)
    assert engine.run(5.0) == [latch]
    assert finished(engine)[0][-4:] == (5.0, 5.0, 6.0, 1.0)


def test_an_aborted_graph_counts_down_that_it_is_over_and_no_other_latch(engine: Simulated) -> None:
    place, _ = at_work(engine, 1)
    first = engine.latches(2)
    engine.set_latches(first, 2, tell=True)
    engine.start(engine.template([Node(WORK, 0, amount=9.0, latch=0)]), place, 0, latches=first, done=first + 1)
    engine.run(1.0)
    engine.abort(place, 0)
    assert engine.run(inf) == [first + 1]
    assert engine.now_s == 1.0
    assert engine.run(inf) == []


def test_an_aborted_gate_does_not_open(engine: Simulated) -> None:
    place, _ = at_work(engine, 1)
    latch = engine.latches(1)
    engine.set_latches(latch)
    gated = engine.template([Node(GATE, held=True), Node(WORK, 0, amount=1.0, after=(0,))])
    for batch in range(3):
        engine.start(gated, place, batch, waits=[(0, latch)])
    engine.run(1.0)
    engine.abort(place, 1)
    engine.count_down(latch)
    assert [(row.batch, row.end_s) for row in finished(engine)] == [(0, 2.0), (2, 3.0)]


def test_graphs_are_begun_together_as_one_by_one() -> None:
    rows = []
    for together in (True, False):
        engine = Plain()
        places = [at_work(engine, 1)[0] for _ in range(3)]
        templates = [engine.template([Node(WORK, 0, amount=1.0 + k, latch=0)]) for k in range(3)]
        first = engine.latches(4)
        engine.set_latches(first, 3)
        engine.set_latches(first + 3, left=3, tell=True)
        latches = range(first, first + 3)
        if together:
            engine.start_all(templates, places, 5, latches=latches, done=first + 3)
        else:
            for template, place, latch in zip(templates, places, latches, strict=True):
                engine.start(template, place, 5, latches=latch, done=first + 3)
        assert engine.run(inf) == [first + 3]
        rows.append(engine.rows)
    assert rows[0] == rows[1]


# -- room --------------------------------------------------------------------------------------------------------------


def test_there_is_room_for_many_changes_of_one_rate() -> None:
    engine = Plain()
    place, connection = connected(engine, [engine.link(8.0)])
    send(engine, place, 8.0)
    for change in range(3001):
        engine.set_window(connection, 1.0 + change % 2)
    engine.run(2.0)
    for change in range(3001):
        engine.set_window(connection, 2.0 + change % 2)
    assert [row.end_s for row in finished(engine)] == close([5.0])


@pytest.mark.parametrize("spare", [4, 8, 12])
def test_there_is_room_for_the_events_of_new_rates(spare: int) -> None:
    engine = Plain()
    link, idle = engine.link(8.0), engine.link(1.0)
    for k in range(7):
        place, connection = connected(engine, [link])
        engine.set_window(connection, 100.0)
        send(engine, place, 8000.0 + k)
    place, _ = connected(engine, [idle], 100.0)
    engine.run(1.0)
    engine.set_capacity(link, 1e4)
    count = len(engine.state.events) - spare
    send(engine, place, *[0.0] * count)
    rows = finished(engine)
    assert len(rows) == 7 + count
    assert [row.end_s for row in rows[:7]] == close([1.0 + (8000.0 + k - 8.0 / 7) / 100.0 for k in range(7)])


@pytest.mark.parametrize("spare", [5, 8])
def test_a_full_log_changes_nothing_of_what_happens_at_one_instant(spare: int) -> None:
    engine = Plain()
    machine = engine.machine(engine.pool(8), 1.0)
    first = engine.template([Node(WORK, 0, amount=1.0, latch=0)])
    then = engine.template([Node(GATE, held=True), Node(WORK, 0, amount=1.0, after=(0,))])
    latches = engine.latches(8)
    engine.set_latches(latches, 8)
    for k in range(8):
        engine.start(first, engine.place(k, 0, {0: machine}), 0, latches=latches + k)
        engine.start(then, engine.place(20 - k, 1, {0: machine}), 1, waits=[(0, latches + k)])
    work(engine, engine.place(30, 0, {0: machine}), *[0.0] * (len(engine.state.log) - spare), batch=2)
    cores = [row.core for row in finished(engine) if row.batch == 1]
    assert cores == list(range(7, -1, -1)), "the lowest session has the lowest core"
