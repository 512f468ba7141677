"""How fast the privacy analyses and the real noise are, on one core, and how far the exact analysis gets below
Theorem 6. Run: python benchmarks/privacy.py"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from capcsim.privacy.conversions import epsilon_improved
from capcsim.privacy.exact import exact_curve, exact_rdp
from capcsim.privacy.mechanisms import GNMax, LNMax, NoiseKind
from capcsim.privacy.noise import real_noise
from capcsim.privacy.smooth import sanitise
from capcsim.privacy.theorem6 import log_q, theorem6

ORDERS = np.concatenate([np.arange(1.1, 2, 0.1), np.arange(2, 32, 0.5), np.geomspace(32, 512, 31)])
QUERIES, REPEATS = 1_000_000, 3
GOLDEN = Path(__file__).parents[1] / "tests" / "privacy" / "golden.json"


def best_s(act: Callable[[], object]) -> float:
    """The shortest of some runs, after one that compiles."""
    act()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        act()
        times.append(time.perf_counter() - begin)
    return min(times)


def many_votes() -> np.ndarray:
    """Histograms of 250 voters and ten classes, from nearly unanimous to split; few of them are equal."""
    generator = np.random.default_rng(0)
    kinds = generator.dirichlet(np.full(10, 0.3), 1000)
    return generator.multinomial(250, kinds[generator.integers(0, 1000, QUERIES)])


def main() -> None:
    streams = json.loads(GOLDEN.read_text())["streams"]
    gnmax, votes = GNMax(40.0), many_votes()
    with threadpool_limits(1):
        seconds = best_s(lambda: theorem6(log_q(votes, gnmax), gnmax, ORDERS))
        print(f"Theorem 6, {QUERIES:,} queries x {len(ORDERS)} orders: {seconds:.2f} s (at most 5)")
        for name, stream in streams.items():
            mechanism, counts, delta = GNMax(stream["sigma"]), stream["votes"], stream["delta"]
            published = epsilon_improved(ORDERS, theorem6(log_q(counts, mechanism), mechanism, ORDERS), delta)[0]
            for noise in NoiseKind:
                seconds = best_s(lambda m=mechanism, c=counts, n=noise: exact_rdp(c, m, ORDERS, n))
                curve = exact_curve(exact_rdp(counts, mechanism, ORDERS, noise))
                found = epsilon_improved(ORDERS, curve, delta)[0]
                print(
                    f"exact, {noise.value}, {name}, {len(counts)} queries x {len(ORDERS)} orders: {seconds:.2f} s"
                    f" (at most 2); epsilon {found:.3f}, Theorem 6 {published:.3f}: {published / found:.2f} times"
                )
        stream = streams["svhn_like_K250"]
        seconds = best_s(lambda: sanitise(stream["votes"], GNMax(40.0), 1e-6, 20.0))
        print(f"smooth sensitivity of {len(stream['votes'])} queries: {seconds:.2f} s")
        for mechanism in (GNMax(7.0), GNMax(40.0), LNMax(20.0)):
            seconds = best_s(lambda m=mechanism: real_noise(m, (100_000,)))
            print(f"real noise, {mechanism.name} {mechanism.scale:g}: {1e5 / seconds:,.0f} samples/s (opendp)")


if __name__ == "__main__":
    main()
