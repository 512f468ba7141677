"""Predicted against measured latency of the crypten backend, over links with real latency.

Run: python benchmarks/crypten_latency.py [--json] [--model cryptonet-relu] [--batch 1] [--latency-ms 0,20,50]
[--provider first-party] [--repeats 7] [--operations]. The parties' processes are connected directly (0 ms), or by a
relay that holds back each direction. Measured: from the moment at which both begin until the last of them is done.
Predicted: transcripts of the direct connection, replayed on two simulated machines of one core with that latency and
as much bandwidth as a step can use. Medians; "at best" compares the least of each, which a busy machine disturbs less:
it shows in the spread. As root the processes go before all others. A dealer is a third process, and wants a third core.
With --operations: each operation of gloo's that CrypTen uses, by size, and what of it went over
the wire.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from delayed_gloo import OPERATIONS, TimedParties, frames, operate, rank_of, timed_backend
from relay import Control, relay
from threadpoolctl import threadpool_limits

from capcsim import registry
from capcsim.backend import Message, Role, Step, Transcript
from capcsim.costs.cache import host, versions
from capcsim.costs.transcripts import rounds
from capcsim.errors import BackendUnavailable
from capcsim.learning.models import build_model, usual_input_shape
from capcsim.simulation.alone import alone
from capcsim_crypten import CryptenBackend

CLASSES = 10
BANDWIDTH_BPS = 1e12
"""The relay adds latency only."""
SIZES = (1, 10, 1000, 100_000, 300_000, 600_000, 1_200_000)
"""Words of 8 bytes."""


def predicted_s(transcript: Transcript, latency_s: float) -> float:
    """When the last of the two parties is done, on machines of one core."""
    log = alone([transcript], bps=BANDWIDTH_BPS, latency_s=latency_s)
    work = pd.concat([pa.table(columns).to_pandas() for columns in log.compute()])
    return float(work[work.role != Role.DEALER].end_s.max())


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ahead of the machine's other processes, where we may: Linux and root. Those that we start inherit it."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except (AttributeError, OSError):
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def linked(latency_s: float, provider: str) -> Iterator[tuple[CryptenBackend, TimedParties, Control | None]]:
    """The backend over a link, its parties, connected already, and the relay's control if there is one."""
    with relay(latency_s) if latency_s else nullcontext() as address:
        backend, parties = timed_backend(address, provider=provider)
        with closing(backend):
            parties._start()
            yield backend, parties, Control(address) if address else None


def measure(
    latency_s: float, model: Any, x: Any, provider: str, repeats: int
) -> dict[str, list[tuple[float, Transcript]]]:
    """Seconds and transcript of every repeat of each step, after a warm-up."""
    found: dict[str, list[tuple[float, Transcript]]] = {"infer": [], "argmax": []}
    # Our own reference runs here between the steps: its threads must not spin into them.
    with undisturbed(), threadpool_limits(1), linked(latency_s, provider) as (backend, parties, _):
        session, _ = backend.open(0, backend.prepare(model, seed=0))
        for _ in range(repeats + 1):
            logits, transcript = backend.infer(session, x)
            found["infer"].append((parties.took_s, transcript))
            _, transcript = backend.argmax(session, logits)
            found["argmax"].append((parties.took_s, transcript))
    return {step: rows[1:] for step, rows in found.items()}


def compare(
    model_name: str, batch: int, provider: str, latencies_s: Sequence[float], repeats: int
) -> list[dict[str, Any]]:
    """A row for every step and latency."""
    shape = usual_input_shape(model_name)
    model = build_model(model_name, shape, CLASSES, (100,), seed=0).eval()
    x = np.random.default_rng(0).random((batch, *shape)).astype(np.float32)
    direct = measure(0.0, model, x, provider, repeats)
    rows = []
    for latency_s in latencies_s:
        found = measure(latency_s, model, x, provider, repeats) if latency_s else direct
        for step, runs in found.items():
            measured = sorted(took_s for took_s, _ in runs)
            expected = sorted(predicted_s(transcript, latency_s) for _, transcript in direct[step])
            rows.append(
                {
                    "step": step,
                    "latency_s": latency_s,
                    "rounds": rounds(direct[step][0][1]),
                    "measured_s": median(measured),
                    "measured_low_s": measured[0],
                    "measured_high_s": measured[-1],
                    "predicted_s": median(expected),
                    "error": median(expected) / median(measured) - 1,
                    "error_at_best": expected[0] / measured[0] - 1,
                }
            )
    return rows


def operations(latency_s: float, sizes: Sequence[int], repeats: int) -> Iterator[dict[str, Any]]:
    """A row for every operation and size: one-way latencies and bytes, of the wire and of the transcript."""
    with linked(latency_s, "first-party") as (_, parties, control):
        assert control, "operations are measured over a relay"
        for operation in OPERATIONS:
            for elements in sizes:
                took_s, transcripts = [], []
                control.capture()
                for _ in range(repeats):
                    calls = dict.fromkeys(parties.roles, (operate, (operation, elements)))
                    transcripts.append(parties.run(Step.INFER, calls)[1])
                    took_s.append(parties.took_s)
                passed = frames(control.captured())
                expected_s = median(predicted_s(transcript, latency_s) for transcript in transcripts)
                yield {
                    "operation": operation,
                    "payload_bytes": 8 * elements,
                    "latencies_measured": median(took_s) / latency_s,
                    "latencies_least": min(took_s) / latency_s,
                    "latencies_predicted": expected_s / latency_s,
                    "messages": len(passed) / repeats,
                    "bytes": [sum(f.nbytes for f in passed if f.sender == rank) // repeats for rank in (0, 1)],
                    "bytes_transcript": sent_by_rank(transcripts[0]),
                }


def sent_by_rank(transcript: Transcript) -> list[int]:
    """What each of the two parties sends."""
    sent = [0, 0]
    for node in transcript:
        if isinstance(node, Message):
            sent[rank_of(node.sender)] += node.nbytes
    return sent


def step_line(row: dict[str, Any]) -> str:
    return (
        f"{row['step']:6s} over {1e3 * row['latency_s']:3.0f} ms, {row['rounds']:3d} rounds:"
        f" predicted {row['predicted_s']:7.3f} s, measured {row['measured_s']:7.3f} s"
        f" ({row['measured_low_s']:.3f} to {row['measured_high_s']:.3f}): {100 * row['error']:+5.1f} %,"
        f" {100 * row['error_at_best']:+5.1f} % at best"
    )


def operation_line(row: dict[str, Any]) -> str:
    return (
        f"{row['operation']:26s} {row['payload_bytes']:9,d} B, latencies: {row['latencies_measured']:5.2f} measured"
        f" (at least {row['latencies_least']:.2f}), {row['latencies_predicted']:5.2f} predicted;"
        f" {row['messages']:3.0f} messages, bytes by party {row['bytes']}, laid out {row['bytes_transcript']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", default="cryptonet-relu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--latency-ms", default="0,20,50")
    parser.add_argument("--provider", default="first-party")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--operations", action="store_true", help="gloo's operations by size, instead of a model")
    arguments = parser.parse_args()
    try:
        registry.load("crypten").close()
    except BackendUnavailable as error:
        parser.error(str(error))
    latencies_s = [float(word) / 1e3 for word in arguments.latency_ms.split(",")]
    if arguments.operations:
        rows = [row for each in latencies_s if each for row in operations(each, SIZES, arguments.repeats)]
    else:
        given = arguments.model, arguments.batch, arguments.provider
        rows = compare(*given, latencies_s, arguments.repeats)
    if arguments.json:
        print(json.dumps({"rows": rows, "host": host(), "versions": versions()}, indent=2))
        return
    for row in rows:
        print(operation_line(row) if arguments.operations else step_line(row))


if __name__ == "__main__":
    main()
