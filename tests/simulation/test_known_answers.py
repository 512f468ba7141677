"""What theory knows: a queue's mean wait, and what must not change when everything else is scaled."""

import copy
from collections.abc import Callable
from math import sqrt
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capcsim.simulation import replay
from capcsim.simulation.engine.engine import Engine, Node, Rows
from capcsim.simulation.engine.graphs import WORK
from capcsim.simulation.engine.records import LOG

World = dict[str, Any]


# -- a queue with one server -------------------------------------------------------------------------------------------


def waits_s(load: float, jobs: int, seed: int, compile_: bool | None) -> tuple[np.ndarray[Any, Any], float]:
    """The time that each job waits for the one core, and what Pollaczek and Khinchine say of its mean.

    Arrivals are Poisson: a chain of stretches of work on cores without end, each of which lets a job begin. Jobs take
    one of seven times, as far apart as those of a transcript's samples.
    """
    generator = np.random.default_rng(seed)
    samples = generator.lognormal(0.0, 0.8, 7)
    chunks: list[Rows] = []
    engine = Engine(chunks.append, compile_=compile_)
    source, server = (engine.machine(engine.pool(1), 1.0) for _ in range(2))
    served_s = generator.choice(samples, jobs)
    gaps_s = generator.exponential(samples.mean() / load, jobs)
    nodes: list[Node] = []
    for gap_s, service_s in zip(gaps_s.tolist(), served_s.tolist(), strict=True):
        before = (len(nodes) - 2,) if nodes else ()
        nodes.append(Node(WORK, 0, amount=gap_s, after=before))
        nodes.append(Node(WORK, 1, amount=service_s, after=(len(nodes) - 1,)))
    engine.start(engine.template(nodes), engine.place(0, 0, {0: source, 1: server}), 0)
    engine.run(float("inf"))
    engine.flush()
    rows = np.concatenate(chunks or [np.zeros(0, LOG)])
    served = rows[rows["node"] % 2 == 1]
    rate = load / samples.mean()
    return served["start_s"] - served["ready_s"], rate * (samples**2).mean() / (2 * (1 - load))


def check_wait(load: float, replications: int, jobs: int, most: float, compile_: bool | None) -> None:
    """The mean of independent replications against the formula, each of which has moments of its own."""
    ratios = []
    for seed in range(replications):
        found_s, expected_s = waits_s(load, jobs, seed, compile_)
        ratios.append(found_s.mean() / expected_s)
    half_width = 2.7 * np.std(ratios, ddof=1) / sqrt(replications)  # 99 % of Student's t with 40 degrees of freedom
    assert half_width <= most
    assert abs(np.mean(ratios) - 1) <= half_width


@pytest.mark.parametrize(("load", "most"), [(0.5, 0.2), (0.8, 0.4)])
def test_a_sample_of_jobs_waits_as_long_as_pollaczek_and_khinchine_say(load: float, most: float) -> None:
    check_wait(load, 12, 400, most, None)


@pytest.mark.slow
@pytest.mark.parametrize(("load", "jobs", "most"), [(0.5, 12_000, 0.02), (0.8, 40_000, 0.02), (0.95, 60_000, 0.06)])
def test_jobs_wait_as_long_as_pollaczek_and_khinchine_say(load: float, jobs: int, most: float) -> None:
    check_wait(load, 40, jobs, most, True)


# -- what scaling must not change --------------------------------------------------------------------------------------


def random_world(seed: int) -> World:
    """Two sites, five machines, three sessions over graphs of work and messages."""
    random = Random(seed)
    names = [f"m{number}" for number in range(5)]
    sites = {
        name: {way: random.choice([None, random.uniform(1e6, 1e8)]) for way in ("up_bps", "down_bps")} for name in "ab"
    }
    machines = {
        name: {
            "site": random.choice("ab"),
            "cores": random.randint(1, 3),
            "speed": random.uniform(0.5, 2.0),
            "up_bps": random.uniform(1e6, 1e8),
            "down_bps": random.uniform(1e6, 1e8),
        }
        for name in names
    }
    latencies = {a: {b: random.uniform(0.0, 0.1) for b in "ab"} for a in "ab"}
    transcripts = {f"t{number}": graph(random, ["querier", "answerer", "guardian"]) for number in range(3)}
    transcripts["closing"] = graph(random, ["querier", "guardian"])
    sessions = [
        {
            "querier": f"p{querier}",
            "guardian": "p4",
            "pairs": [
                {"answerer": f"p{party}", "transcript": random.choice(["t0", "t1", "t2"])}
                for party in range(4)
                if party != querier
            ],
            "closing": "closing",
            "arrivals_s": sorted(random.uniform(0, 2) for _ in range(3)),
        }
        for querier in range(3)
    ]
    parties = {f"p{number}": {"machine": name} for number, name in enumerate(names)}
    return {
        "sites": sites,
        "latency_s": latencies,
        "machines": machines,
        "parties": parties,
        "transcripts": transcripts,
        "sessions": sessions,
    }


def graph(random: Random, roles: list[str]) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = []
    for number in range(random.randint(2, 9)):
        after = sorted(random.sample(range(number), min(number, random.randint(0, 2))))
        if random.random() < 0.5:
            nodes.append({"role": random.choice(roles), "seconds": random.uniform(0, 0.2), "after": after})
        else:
            sender, receiver = random.sample(roles, 2)
            nodes.append({"from": sender, "to": receiver, "bytes": random.randint(1, 200_000), "after": after})
    return nodes


def scaled(
    world: World, *, size: float = 1.0, bps: float = 1.0, work: float = 1.0, speed: float = 1.0, time: float = 1.0
) -> World:
    """Each kind of figure by a factor."""
    world = copy.deepcopy(world)
    for line in (*world["sites"].values(), *world["machines"].values()):
        for way in ("up_bps", "down_bps"):
            line[way] = line[way] and line[way] * bps
    for machine in world["machines"].values():
        machine["speed"] *= speed
    for node in (node for nodes in world["transcripts"].values() for node in nodes):
        key, factor = ("seconds", work) if "seconds" in node else ("bytes", size)
        node[key] *= factor
    for row in world["latency_s"].values():
        row.update({name: time * latency_s for name, latency_s in row.items()})
    for session in world["sessions"]:
        session["arrivals_s"] = [time * at_s for at_s in session["arrivals_s"]]
    return world


def times_s(world: World) -> list[float]:
    found = replay(world, compile_=False)
    rows = sorted(found["batches"], key=lambda row: (row["session"], row["batch"]))
    return [row[key] for row in rows for key in ("start_s", "end_s")]


@pytest.mark.parametrize(
    ("factors", "longer"),
    [
        ({"size": 2.0, "bps": 2.0}, 1.0),
        ({"work": 2.0, "speed": 2.0}, 1.0),
        ({"size": 2.0, "work": 2.0, "time": 2.0}, 2.0),
        ({"bps": 0.5, "speed": 0.5, "time": 2.0}, 2.0),
        ({"size": 3.0, "bps": 3.0, "work": 0.25, "speed": 0.25}, 1.0),
    ],
)
@pytest.mark.parametrize("seed", range(8))
def test_doubling_what_is_to_be_done_and_what_does_it_changes_nothing(
    seed: int, factors: dict[str, float], longer: float
) -> None:
    world = random_world(seed)
    assert times_s(scaled(world, **factors)) == pytest.approx([longer * time_s for time_s in times_s(world)], rel=1e-9)


def one_link(
    messages: list[tuple[float, int]], bps: float, after: Callable[[int], tuple[int, ...]] = lambda _: ()
) -> World:
    """Messages over one line, each sent at its time: by a session of its own, whose batch comes then."""
    return {
        "sites": {"s": {}},
        "latency_s": {"s": {"s": 0.01}},
        "machines": {"a": {"site": "s", "cores": 1, "up_bps": bps}, "b": {"site": "s", "cores": 1}},
        "parties": {"q": {"machine": "a"}, "g": {"machine": "b"}},
        "transcripts": {
            f"t{number}": [{"from": "querier", "to": "guardian", "bytes": nbytes, "after": list(after(number))}]
            for number, (_, nbytes) in enumerate(messages)
        },
        "sessions": [
            {"querier": "q", "guardian": "g", "pairs": [], "closing": f"t{number}", "arrivals_s": [at_s]}
            for number, (at_s, _) in enumerate(messages)
        ],
    }


arrivals = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 10**6)), min_size=1, max_size=12)


@given(arrivals, st.floats(1e5, 1e7), st.floats(1.0, 10.0))
def test_more_bandwidth_never_makes_the_last_label_later_on_one_link(
    messages: list[tuple[float, int]], bps: float, more: float
) -> None:
    before, after = (max(times_s(one_link(messages, each))[1::2]) for each in (bps, bps * more))
    assert after <= before * (1 + 1e-12)


@given(arrivals, st.floats(1e5, 1e7))
def test_a_link_that_has_work_is_never_idle(messages: list[tuple[float, int]], bps: float) -> None:
    # A single server of the same rate has the same busy periods, however its flows share it.
    free_s = 0.0
    for at_s, nbytes in sorted(messages):
        free_s = max(free_s, at_s) + 8 * nbytes / bps
    assert max(times_s(one_link(messages, bps))[1::2]) == pytest.approx(free_s + 0.01, rel=1e-9)


@given(st.integers(2, 10**6), st.floats(1e5, 1e7), st.integers(2, 5))
def test_splitting_a_message_changes_nothing(nbytes: int, bps: float, parts: int) -> None:
    whole = one_link([(0.5, nbytes)], bps)
    split = copy.deepcopy(whole)
    sizes = [nbytes // parts] * (parts - 1) + [nbytes - nbytes // parts * (parts - 1)]
    split["transcripts"]["t0"] = [{"from": "querier", "to": "guardian", "bytes": size} for size in sizes]
    assert times_s(split) == pytest.approx(times_s(whole), rel=1e-12)
