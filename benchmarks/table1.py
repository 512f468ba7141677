"""The paper's Table 1 on this machine, for all backends: one forward pass, the vote (QP-AP), the release (QP-PG).

Run: python benchmarks/table1.py [--model cryptonet-relu] [--batch 1] [--repeats 7] [--levels 8192,16384,32768] [--json]
Medians of repeats in which the rows take turns, set-up apart. Random weights and inputs; costs do not depend on them.
"""

import argparse
import json
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from yao import aes_ecb

from capcsim import registry
from capcsim.backend import AHEAD, VOTE_RING_BITS, ReleaseNoise
from capcsim.costs.cache import host, versions
from capcsim.costs.transcripts import rounds, sent_bytes
from capcsim.crypto.shares import reconstruct
from capcsim.errors import CapcsimError
from capcsim.learning.models import build_model, usual_input_shape
from capcsim.scenario import ModelKind
from capcsim_hybrid import HybridBackend
from capcsim_plaintext import PlaintextBackend

PAPER_S = {"hybrid 8192": 14.22, "hybrid 16384": 29.46, "hybrid 32768": 57.26, "float32": 0.152}
PAPER_VOTE_S, PAPER_RELEASE_S = 0.12, 0.030
"""Table 1 of the paper, CryptoNet-ReLU, batch 1, on its authors' machine (HE-transformer)."""


@dataclass
class Row:
    """One backend with its sessions; `times` has seconds by what was timed."""

    name: str
    backend: Any
    prepared: Any
    session: Any
    guardian: Any
    times: dict[str, list[float]]
    agreement: list[float]
    transcript: Any = None

    @classmethod
    def of(cls, name: str, backend: Any, model: Any) -> "Row":
        prepared = backend.prepare(model, seed=0)
        started_s = time.perf_counter()
        session, _ = backend.open(0, prepared)
        row = cls(name, backend, prepared, session, backend.open(0, None)[0], defaultdict(list), [])
        row.times["setup"].append(time.perf_counter() - started_s)
        return row

    def run(self, x: Any, expected: Any, noise: ReleaseNoise) -> None:
        """One forward pass, vote and release, each timed; the phase ahead apart where there is one."""
        started_s = time.perf_counter()
        ahead = AHEAD.of(self.backend)
        if ahead and self.fits(len(x)):
            self.timed("offline", lambda: ahead.prepare_ahead(self.session, len(x)))
            shares, self.transcript = self.timed("online", lambda: self.backend.infer(self.session, x))
        else:
            shares, self.transcript = self.backend.infer(self.session, x)
        self.times["forward"].append(time.perf_counter() - started_s)
        opened = reconstruct(shares.values, shares.ring_bits)
        if self.backend.capabilities.exact and not np.array_equal(opened, expected):
            raise SystemExit(f"{self.name}: the logits differ from the integer reference")
        self.agreement.append(float(np.mean(opened.argmax(axis=1) == expected.argmax(axis=1))))
        votes, _ = self.timed("vote", lambda: self.backend.argmax(self.session, shares))
        self.timed("release", lambda: self.backend.release(self.guardian, *votes.values, noise))

    def fits(self, queries: int) -> bool:
        near = self.session.near
        return bool(queries <= near.plan.most_queries(near.pool_bytes))

    def timed(self, what: str, call: Callable[[], Any]) -> Any:
        started_s = time.perf_counter()
        result = call()
        self.times[what].append(time.perf_counter() - started_s)
        return result

    def summary(self, batch: int) -> dict[str, Any]:
        plan = getattr(self.prepared.private, "plan", None)
        return {
            "security": self.backend.capabilities.security,
            "leaks": {role.value: what for role, what in self.backend.capabilities.leaks.items()},
            "votes_as_reference": float(np.mean(self.agreement)),
            "parameters": str(getattr(plan, "parameters", "")),
            **{f"{what}_s": median(values) for what, values in self.times.items()},
            "rounds": rounds(self.transcript),
            "bytes": sum(sent_bytes(self.transcript).values()),
            "forward_s_per_query": median(self.times["forward"]) / batch,
        }


def float_forward(model: Any, x: Any) -> Callable[[], float]:
    """Seconds of torch's own float32 forward pass, on one thread."""
    samples = torch.from_numpy(x)

    def run() -> float:
        started_s = time.perf_counter()
        with torch.no_grad():
            model(samples)
        return time.perf_counter() - started_s

    return run


def peak_memory_bytes() -> dict[str, int]:
    """The most that this process (the querying party) and its helper (the answering party) held."""
    found = {"querier": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    children = Path("/proc/self/task")
    if children.exists():
        pids = [pid for task in children.iterdir() for pid in (task / "children").read_text().split()]
        for pid in pids:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            peak = [1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
            found["answerer"] = max(found.get("answerer", 0), *peak)
    return found


def measure(kind: Any, batch: int, repeats: int, levels: list[int]) -> dict[str, Any]:
    shape = usual_input_shape(kind)
    model = build_model(kind, shape, 10, (100,), seed=0).eval()
    x = np.random.default_rng(0).random((batch, *shape), np.float32)
    noise = ReleaseNoise(np.zeros((batch, 10), np.int64), ring_bits=VOTE_RING_BITS)
    rows = [Row.of(f"hybrid {level}", HybridBackend(security=level), model) for level in levels]
    rows.append(Row.of(f"hybrid {levels[0]} online", HybridBackend(security=levels[0], order="online"), model))
    if find_spec("crypten"):
        providers = ("first-party", "third-party")
        rows += [Row.of(f"crypten {p}", registry.load("crypten", {"provider": p}), model) for p in providers]
    rows.append(Row.of("plaintext", PlaintextBackend(), model))
    expected = rows[0].backend.reference(rows[0].prepared, x)
    forward, yardstick, plain, rates = float_forward(model, x), aes_ecb(), [], []
    with threadpool_limits(1):
        torch.set_num_threads(1)
        for repeat in range(repeats + 1):
            for row in rows:
                row.run(x, expected, noise)
                if repeat == 0:  # the first round warms up
                    row.times = defaultdict(list, {"setup": row.times["setup"]})
            if repeat:
                plain.append(forward())
                rates.append(yardstick())
            else:
                forward(), yardstick()
    memory = peak_memory_bytes()
    for row in rows:
        row.backend.close()
    found = {row.name: row.summary(batch) for row in rows}
    float_s, a = median(plain), median(rates)
    for summary in found.values():
        summary["ratio_to_float32"] = summary["forward_s"] / float_s
        summary["million_aes_blocks"] = summary["forward_s"] * a
    return {
        "model": kind,
        "batch": batch,
        "float32_forward_s": float_s,
        "aes_ecb_mblocks_s": a,
        "rows": found,
        "peak_memory_bytes": memory,
        "host": host(),
        "versions": versions(),
    }


def show(found: dict[str, Any]) -> None:
    print(
        f"{found['model']}, batch {found['batch']}, milliseconds; the paper's figures are for CryptoNet-ReLU at batch 1"
    )
    comparable = (found["model"], found["batch"]) == ("cryptonet-relu", 1)
    columns = ("row", "forward", "offline", "online", "paper", "QP-AP", "QP-PG", "MB", "rounds", "/ float32")
    print("{:<22}{:>10}{:>10}{:>9}{:>9}{:>8}{:>8}{:>9}{:>8}{:>11}  security, parameters".format(*columns))
    for name, row in found["rows"].items():
        times = [f"{1e3 * row[key]:.3g}" if key in row else "" for key in ("forward_s", "offline_s", "online_s")]
        paper = f"{1e3 * PAPER_S[name]:.0f}" if name in PAPER_S and comparable else ""
        votes = [f"{1e3 * row[key]:.3g}" for key in ("vote_s", "release_s")]
        figures = [
            *times,
            paper,
            *votes,
            f"{row['bytes'] / 1e6:.2f}",
            str(row["rounds"]),
            f"{row['ratio_to_float32']:.0f}",
        ]
        print(
            "{:<22}{:>10}{:>10}{:>9}{:>9}{:>8}{:>8}{:>9}{:>8}{:>11}".format(name, *figures),
            f" {row['security']}; {row['parameters']}",
        )
    paper = f"{1e3 * PAPER_S['float32']:.0f}" if comparable else ""
    print(f"{'no encryption, float32':<22}{1e3 * found['float32_forward_s']:>10.3g}{'':>19}{paper:>9}")
    if comparable:
        print(f"the paper: QP-AP {1e3 * PAPER_VOTE_S:.0f}, QP-PG {1e3 * PAPER_RELEASE_S:.0f}")
    memory = ", ".join(f"{role} {size / 1e6:.0f} MB" for role, size in found["peak_memory_bytes"].items())
    for name, row in found["rows"].items():
        told = "; ".join(f"the {role} learns {what}" for role, what in row["leaks"].items())
        print(f"{name} ({row['security']}), {100 * row['votes_as_reference']:.4g} % of votes as the reference: {told}")
    print(f"AES-ECB in the same run: {found['aes_ecb_mblocks_s']:.0f} M blocks/s; peak memory: {memory}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cryptonet-relu", choices=get_args(ModelKind))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--levels", default="8192,16384,32768", help="security levels, as polynomial degrees")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.batch < 1 or arguments.repeats < 1:
        parser.error("--batch and --repeats must be at least 1")
    try:
        levels = [int(level) for level in arguments.levels.split(",")]
        found = measure(arguments.model, arguments.batch, arguments.repeats, levels)
    except (CapcsimError, ValueError) as error:
        parser.error(str(error))
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()
