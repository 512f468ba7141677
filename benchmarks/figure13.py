"""CPU, network and memory over time while one batch of queries is answered (paper, figure 13), for each backend.

Run: python benchmarks/figure13.py [--model lenet] [--batch 10] [--output figure13.png] [--json]. Needs psutil
(pip install 'capcsim[benchmarks]'). The querying and the answering party are processes of their own that talk over the
loopback interface: by TLS for plaintext and hybrid, by gloo for CrypTen, as each really does. Nothing is simulated: CPU
and memory are the processes', the network is all that the interface carried, framing and other programs included.
Steps 1a to 1c are shown; steps 2 and 3 take a millisecond.
"""

import argparse
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl
import numpy as np
import psutil
from matplotlib.figure import Figure

from capcsim import registry
from capcsim.backend import Step
from capcsim.errors import CapcsimError
from capcsim.learning.models import build_model, usual_input_shape
from capcsim.report.figures import STEP_COLOURS, STYLE
from capcsim.twoparty.channels import Identity, accept, connect, run_socket
from capcsim.twoparty.programs import Steps
from capcsim.twoparty.voting import argmax_programs, set_up_programs

BACKENDS = {"plaintext": "none", "hybrid": "semi-honest", "crypten": "trusted first party"}
ROLES = ("querying party", "answering party")
PERIOD_S = 0.01
WINDOW = 10
"""Samples over which rates are taken: the system counts CPU time in steps of 10 ms."""
BEFORE_S, AFTER_S = 0.15, 0.15
COLOURS = {"querying party": "#1f5fa8", "answering party": "#d1495b"}


@dataclass
class Recording:
    """Samples of both processes and the interface, and when each step began; seconds since the query."""

    at_s: list[float] = field(default_factory=list)
    cpu_s: dict[str, list[float]] = field(default_factory=lambda: {role: [] for role in ROLES})
    rss_bytes: dict[str, list[int]] = field(default_factory=lambda: {role: [] for role in ROLES})
    net_bytes: list[int] = field(default_factory=list)
    steps: dict[str, float] = field(default_factory=dict)

    def watch(self, processes: dict[str, psutil.Process], query: Callable[[], Iterator[tuple[str, float]]]) -> None:
        """Sample from a little before the query to a little after it; `query` gives steps and when they begin."""
        over = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(processes, over))
        sampler.start()
        time.sleep(BEFORE_S)
        try:
            self.steps = dict(query())
            time.sleep(AFTER_S)
        finally:
            over.set()
            sampler.join()
        start_s = self.steps["infer"]
        self.at_s = [at_s - start_s for at_s in self.at_s]
        self.steps = {step: at_s - start_s for step, at_s in self.steps.items()}

    def _sample(self, processes: dict[str, psutil.Process], over: threading.Event) -> None:
        while not over.wait(PERIOD_S):
            self.at_s.append(time.time())
            for role, process in processes.items():
                with process.oneshot():
                    times = process.cpu_times()
                    self.cpu_s[role].append(times.user + times.system)
                    self.rss_bytes[role].append(process.memory_info().rss)
            self.net_bytes.append(loopback().bytes_sent)

    def rate(self, values: list[float] | list[int]) -> np.ndarray:
        """Per second, over a window that ends at each sample."""
        amounts, at_s = np.array(values, float), np.array(self.at_s)
        earlier = np.maximum(np.arange(len(at_s)) - WINDOW, 0)
        return (amounts - amounts[earlier]) / np.maximum(at_s - at_s[earlier], PERIOD_S)


def loopback() -> Any:
    interfaces = psutil.net_io_counters(pernic=True, nowrap=False)
    return interfaces.get("lo") or interfaces["lo0"]


def model_of(kind: Any) -> Any:
    return build_model(kind, usual_input_shape(kind), 10, (100,), seed=0).eval()


def inputs(kind: Any, batch: int) -> np.ndarray:
    return np.random.default_rng(0).random((batch, *usual_input_shape(kind)), np.float32)


def mark(step: str) -> None:
    print(step, time.time(), flush=True)


def querying_party(backend: str, kind: str, batch: int) -> Steps:
    """Set up, ask once to warm up, wait to be told, ask."""
    x = inputs(kind, batch)
    garbler = yield from set_up_programs()[0]()
    if backend == "hybrid":
        from capcsim_hybrid.inference import infer_querier
        from capcsim_hybrid.linear import SecretKeys
        from capcsim_hybrid.parameters import context
        from capcsim_hybrid.sessions import set_up_querier

        state = yield from set_up_querier(lambda chosen: SecretKeys(context(chosen)), 8192, "ahead", 1 << 30, garbler)
        ring_bits, infer, side = state.plan.network.ring_bits, infer_querier, state
    else:
        from capcsim_plaintext import PlaintextBackend

        side = PlaintextBackend().prepare(model_of(kind), seed=0).public
        ring_bits, infer = side.ring_bits, PlaintextBackend().programs(Step.INFER)[0]
    for turn in ("warm-up", "recorded"):
        if turn == "recorded":
            mark("ready")
            sys.stdin.readline()
        mark("infer")
        logits = yield from infer(side, x)
        mark("argmax")
        yield from argmax_programs()[0](garbler, logits, ring_bits)
        mark("end")


def answering_party(backend: str, kind: str) -> Steps:
    evaluator = yield from set_up_programs()[1]()
    if backend == "hybrid":
        from capcsim_hybrid import HybridBackend
        from capcsim_hybrid.inference import infer_answerer
        from capcsim_hybrid.sessions import set_up_answerer

        prepared = HybridBackend(processes=False).prepare(model_of(kind), seed=0)
        side = yield from set_up_answerer(prepared.private, 1 << 30, evaluator)
        infer = infer_answerer
    else:
        from capcsim_plaintext import PlaintextBackend

        prepared = PlaintextBackend().prepare(model_of(kind), seed=0)
        side, infer = prepared.private, PlaintextBackend().programs(Step.INFER)[1]
    for _ in range(2):
        logits = yield from infer(side)
        yield from argmax_programs()[1](evaluator, logits, prepared.public.ring_bits)


def run_role(role: str, folder: Path, backend: str, kind: str, batch: int) -> None:
    """One party as a process: over TLS, each with the other's certificate."""
    own, other = ROLES if role == ROLES[0] else ROLES[::-1]
    identity = Identity(own, (folder / f"{own}.crt").read_bytes(), (folder / f"{own}.key").read_bytes())
    peer = (folder / f"{other}.crt").read_bytes()
    if role == ROLES[0]:
        with connect(("127.0.0.1", int((folder / "port").read_text())), identity, peer, other) as channel:
            run_socket(querying_party(backend, kind, batch), channel)
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        channel = accept(listener, identity, peer, other)
    with channel:
        run_socket(answering_party(backend, kind), channel)


def over_tls(backend: str, arguments: argparse.Namespace) -> Recording:
    recording = Recording()
    with TemporaryDirectory() as name:
        folder = Path(name)
        for role in ROLES:
            made = Identity.new(role)
            (folder / f"{role}.crt").write_bytes(made.certificate)
            (folder / f"{role}.key").write_bytes(made.key)
        command = [sys.executable, __file__, "--backends", backend, "--model", arguments.model]
        command += ["--batch", str(arguments.batch), "--folder", name, "--role"]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([*command, ROLES[1]], **pipes) as answerer:
            (folder / "port").write_text(answerer.stdout.readline())
            with subprocess.Popen([*command, ROLES[0]], **pipes) as querier:
                while not querier.stdout.readline().startswith("ready"):
                    assert querier.poll() is None, "the querying party ended"

                def query() -> Iterator[tuple[str, float]]:
                    querier.stdin.write("go\n")
                    querier.stdin.flush()
                    for _ in range(3):
                        step, at_s = querier.stdout.readline().split()
                        yield step, float(at_s)

                recording.watch({ROLES[0]: psutil.Process(querier.pid), ROLES[1]: psutil.Process(answerer.pid)}, query)
    return recording


def over_gloo(arguments: argparse.Namespace) -> Recording:
    recording = Recording()
    x = inputs(arguments.model, arguments.batch)
    backend: Any = registry.load("crypten")
    with closing(backend):
        session, _ = backend.open(0, backend.prepare(model_of(arguments.model), seed=0))
        backend.argmax(session, backend.infer(session, x)[0])
        running = {role.value: pid for role, pid in backend.processes().items()}

        def query() -> Iterator[tuple[str, float]]:
            yield "infer", time.time()
            logits, _ = backend.infer(session, x)
            yield "argmax", time.time()
            backend.argmax(session, logits)
            yield "end", time.time()

        recording.watch(
            {ROLES[0]: psutil.Process(running["querier"]), ROLES[1]: psutil.Process(running["answerer"])}, query
        )
    return recording


def draw(recordings: dict[str, Recording], arguments: argparse.Namespace) -> None:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(recordings), 7.2), layout="constrained")
        for column, (name, found) in enumerate(recordings.items()):
            rows = [figure.add_subplot(3, len(recordings), row * len(recordings) + column + 1) for row in range(3)]
            for role in ROLES:
                rows[0].plot(found.at_s, found.rate(found.cpu_s[role]), color=COLOURS[role], label=role)
                rows[2].plot(found.at_s, np.array(found.rss_bytes[role]) / 1e6, color=COLOURS[role])
            rows[1].plot(found.at_s, found.rate(found.net_bytes) / 1e6, color="#444444")
            for axes in rows:
                axes.set_ylim(bottom=0)
                axes.grid(alpha=0.25)
                for step, after in (("infer", "argmax"), ("argmax", "end")):
                    axes.axvspan(found.steps[step], found.steps[after], color=STEP_COLOURS[step], alpha=0.13)
            middle_s = found.steps["argmax"] / 2
            rows[0].annotate("1a, 1b", (middle_s, 0.97), xycoords=("data", "axes fraction"), ha="center", va="top")
            place = (found.steps["argmax"], 0.97)
            rows[0].annotate(" 1c", place, xycoords=("data", "axes fraction"), va="top")
            rows[0].set_title(f"{name}\nsecurity: {BACKENDS[name]}")
            rows[2].set_xlabel("s since the query")
            if column == 0:
                for axes, label in zip(rows, ("CPU, cores", "network, MB/s", "memory, MB"), strict=True):
                    axes.set_ylabel(label)
                figure.legend(*rows[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        figure.suptitle(f"{arguments.model}, {arguments.batch} queries together, two processes on this machine")
        figure.savefig(arguments.output, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", default="lenet")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--output", type=Path, default=Path("figure13.png"))
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        run_role(arguments.role, arguments.folder, arguments.backends, arguments.model, arguments.batch)
        return
    try:
        recordings = {
            name: over_gloo(arguments) if name == "crypten" else over_tls(name, arguments)
            for name in arguments.backends.split(",")
        }
    except CapcsimError as error:
        parser.error(str(error))
    draw(recordings, arguments)
    rows = {
        name: {
            "security": BACKENDS[name],
            "infer_s": found.steps["argmax"],
            "argmax_s": found.steps["end"] - found.steps["argmax"],
            "network_bytes": found.net_bytes[-1] - found.net_bytes[0],
            "peak_rss_bytes": {role: max(values) for role, values in found.rss_bytes.items()},
            "cpu_s": {role: values[-1] - values[0] for role, values in found.cpu_s.items()},
        }
        for name, found in recordings.items()
    }
    if arguments.json:
        print(json.dumps({"figure": str(arguments.output), "backends": rows}, indent=2))
        return
    for name, row in rows.items():
        print(name, json.dumps(row))
    print(arguments.output)


if __name__ == "__main__":
    main()
