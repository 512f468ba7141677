"""Closed forms: what a message takes alone, what equal flows take together, what the fair rates are."""

from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from capcsim.simulation.network import Link, Network, max_min_rates_bps


def arrivals(sends: list[tuple[Any, ...]], latency_s: float = 0.0) -> list[float]:
    """When each message (start, uplink, downlink, bytes and maybe its connection) has arrived."""
    env = simpy.Environment()
    network = Network(env, latency_s)
    ends = [0.0] * len(sends)

    def send(index: int, start_s: float, *message: Any) -> simpy.events.ProcessGenerator:
        yield env.timeout(start_s)
        yield from network.send(*message)
        ends[index] = env.now

    for index, message in enumerate(sends):
        env.process(send(index, *message))
    env.run()
    return ends


@pytest.mark.parametrize("nbytes", [0, 1, 1500, 10**9])
@pytest.mark.parametrize(("up_bps", "down_bps"), [(1e6, 1e9), (3e7, 3e7), (1e9, 7e5)])
def test_one_message_takes_latency_plus_bytes_over_bandwidth(nbytes: int, up_bps: float, down_bps: float) -> None:
    alone = arrivals([(0.0, Link("u", up_bps), Link("d", down_bps), nbytes)], latency_s=0.02)
    assert alone == [8 * nbytes / min(up_bps, down_bps) + 0.02]


@pytest.mark.parametrize("flows", [2, 3, 10, 49])
def test_equal_flows_into_one_downlink_take_so_many_times_longer(flows: int) -> None:
    down = Link("d", 1e6)
    ends = arrivals([(0.0, Link(f"u{i}", 1e9), down, 1000) for i in range(flows)], latency_s=0.5)
    assert ends == pytest.approx([flows * 0.008 + 0.5] * flows, rel=1e-12)


@pytest.mark.parametrize("flows", [2, 7])
def test_equal_flows_out_of_one_uplink_share_it(flows: int) -> None:
    up = Link("u", 1e6)
    ends = arrivals([(0.0, up, Link(f"d{i}", 1e9), 1000) for i in range(flows)])
    assert ends == pytest.approx([flows * 0.008] * flows, rel=1e-12)


def test_connections_between_two_machines_share_their_links_and_wait_for_nobody() -> None:
    up, down = Link("u", 1e9), Link("d", 1e6)
    ends = arrivals([(0.0, up, down, 125_000, "one"), (0.0, up, down, 62_500, "two"), (0.0, up, down, 62_500, "two")])
    assert ends == pytest.approx([2.0, 1.0, 2.0], rel=1e-12)


@pytest.mark.parametrize("other_s", [0.0, 0.3])
def test_messages_between_two_machines_go_in_order(other_s: float) -> None:
    """The second waits for the first, and both together get no more of the link than another machine's one does."""
    up, down = Link("u", 1e9), Link("d", 1e6)
    ends = arrivals([(0.0, up, down, 62_500), (0.0, up, down, 62_500), (other_s, Link("v", 1e9), down, 125_000)])
    half = 0.5 + (0.5 - other_s)
    assert ends[0] == pytest.approx(half, rel=1e-12)
    assert ends[1] == pytest.approx(half + 1.0, rel=1e-12)
    assert ends[2] == pytest.approx(2.0, rel=1e-12)


def test_flows_on_different_links_do_not_see_each_other() -> None:
    ends = arrivals([(0.0, Link(f"u{i}", 1e6), Link(f"d{i}", 1e6), 125_000) for i in range(5)])
    assert ends == [1.0] * 5


def test_up_and_down_are_apart() -> None:
    up, down = Link("up", 1e6), Link("down", 1e6)
    ends = arrivals([(0.0, up, Link("d", 1e9), 125_000), (0.0, Link("u", 1e9), down, 125_000)])
    assert ends == [1.0, 1.0]


def test_a_flow_speeds_up_when_another_ends_and_slows_down_when_one_starts() -> None:
    down = Link("d", 1e6)
    # The long one: 1 s alone, 1 s at half rate beside the short one, then the rest alone.
    long, short = arrivals([(0.0, Link("a", 1e9), down, 375_000), (1.0, Link("b", 1e9), down, 62_500)])
    assert short == pytest.approx(2.0, rel=1e-12)
    assert long == pytest.approx(3.5, rel=1e-12)


def test_what_one_flow_cannot_use_is_left_to_the_others() -> None:
    down = Link("d", 1e6)
    slow, fast = arrivals([(0.0, Link("slow", 2e5), down, 25_000), (0.0, Link("fast", 1e9), down, 100_000)])
    assert (slow, fast) == pytest.approx((1.0, 1.0), rel=1e-12)


links = st.lists(st.floats(1e3, 1e9), min_size=1, max_size=5)


@given(links, links, st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20))
def test_rates_are_max_min_fair(ups: list[float], downs: list[float], pairs: list[tuple[int, int]]) -> None:
    """No link is overfull, and each flow has a full link on which no other flow is faster."""
    up = np.array([a % len(ups) for a, _ in pairs])
    down = np.array([len(ups) + b % len(downs) for _, b in pairs])
    bps = np.array(ups + downs)
    rates = max_min_rates_bps(up, down, bps)
    assert (rates > 0).all()
    for flow, rate in enumerate(rates):
        bottleneck = False
        for link in (up[flow], down[flow]):
            here = rates[(up == link) | (down == link)]
            assert here.sum() <= bps[link] * (1 + 1e-9)
            bottleneck |= bool(here.sum() >= bps[link] * (1 - 1e-9) and rate >= here.max() * (1 - 1e-9))
        assert bottleneck


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 10**6)), min_size=1, max_size=12))
def test_every_byte_arrives_and_a_full_link_is_never_idle(messages: list[tuple[float, int]]) -> None:
    down = Link("d", 1e6)
    ends = arrivals([(start, Link(f"u{i}", 1e9), down, n) for i, (start, n) in enumerate(messages)])
    assert down.carried_bytes == sum(n for _, n in messages)
    # A single server of the same rate has the same busy periods, however the flows share it.
    free_s = 0.0
    for start, nbytes in sorted(messages):
        free_s = max(free_s, start) + 8 * nbytes / 1e6
    assert max(ends) == pytest.approx(free_s, rel=1e-6)
