"""How fast the Yao engine is on this machine, with AES-ECB of `cryptography` in the same process as the yardstick.

Run: python benchmarks/yao.py [--json] [--repeats N]. Medians of alternated repeats, one thread.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from capcsim.backend import Compute, Role, Shares, Step
from capcsim.costs.cache import host, versions
from capcsim.crypto import portable
from capcsim.crypto.garbling import GateKeys, Hash, evaluate, garble, lanes_per_key, random_delta, random_labels
from capcsim.crypto.library import argmax_circuit, relu_circuit
from capcsim.crypto.shares import share
from capcsim.twoparty.oblivious_transfer import refill_receiver, refill_sender
from capcsim.twoparty.programs import run_local
from capcsim.twoparty.voting import argmax_programs, set_up_programs
from capcsim.twoparty.yao import EvaluatorSession, GarblerSession, run_evaluator, run_garbler

PAIR = (Role.QUERIER, Role.ANSWERER)
TRANSFERS = 1 << 17


@dataclass
class Session:
    garbler: GarblerSession
    evaluator: EvaluatorSession


def set_up() -> Session:
    garbler, evaluator = set_up_programs()
    return Session(*run_local(PAIR, (garbler(), evaluator()), step=Step.SETUP)[0])


def aes_ecb() -> Callable[[], float]:
    """Million AES blocks a second on a buffer of 1 MiB."""
    data, out = os.urandom(1 << 20), bytearray((1 << 20) + 16)
    encryptor = Cipher(algorithms.AES(os.urandom(16)), modes.ECB()).encryptor()
    return lambda: (1 << 16) / 1e6 / timed(lambda: encryptor.update_into(data, out))


def gates(circuit: Any, instances: int) -> dict[str, Callable[[], float]]:
    """Million ANDs a second: garbling, evaluating, garbling without our own AES."""
    keys, delta = GateKeys.fresh().take(circuit.ands), random_delta()
    labels = random_labels(circuit.inputs, instances)
    tables, outputs = garble(circuit, labels, delta, keys)
    work = circuit.ands * instances / 1e6
    raw = keys.keys()
    return {
        "garble_mand_s": lambda: work / timed(lambda: garble(circuit, labels, delta, keys)),
        "evaluate_mand_s": lambda: work / timed(lambda: evaluate(circuit, labels, tables, keys)),
        "portable_garble_mand_s": lambda: (
            work / timed(lambda: portable.garble(circuit, labels, delta, raw, tables, outputs))
        ),
    }


def transfers(session: Session) -> dict[str, Callable[[], float]]:
    """Million correlated transfers a second, of each side."""

    def run(role: Role) -> float:
        both = (
            refill_sender(session.garbler.transfers, TRANSFERS),
            refill_receiver(session.evaluator.transfers, TRANSFERS),
        )
        _, transcript = run_local(PAIR, both, step=Step.SETUP)
        session.garbler.transfers.take(TRANSFERS)
        session.evaluator.transfers.take(TRANSFERS)
        return TRANSFERS / 1e6 / spent_s(transcript)[role]

    return {"sender": lambda: run(Role.QUERIER), "receiver": lambda: run(Role.ANSWERER)}


def one_argmax(session: Session) -> Callable[[], dict[str, float]]:
    """Microseconds of each side for one argmax of ten 32-bit logits to shares, transfers made ahead."""
    querier, answerer = argmax_programs()

    def run() -> dict[str, float]:
        logits = Shares(share(np.arange(10)[None], 32), 32, 0)
        refills = (refill_sender(session.garbler.transfers, 320), refill_receiver(session.evaluator.transfers, 320))
        run_local(PAIR, refills, step=Step.SETUP)
        programs = (querier(session.garbler, logits.values[0], 32), answerer(session.evaluator, logits.values[1], 32))
        _, transcript = run_local(PAIR, programs, step=Step.ARGMAX)
        spent = spent_s(transcript)
        return {"garbler": 1e6 * spent[Role.QUERIER], "evaluator": 1e6 * spent[Role.ANSWERER]}

    return run


def in_a_row(call: Callable[[], dict[str, float]], times: int = 20) -> Callable[[], dict[str, float]]:
    """Medians of some calls one after the other: a short piece of work between others starts with cold caches."""
    return lambda: medians([call() for _ in range(times)])


def thousand_relus(session: Session) -> Callable[[], dict[str, float]]:
    """Milliseconds of each side for 1,000 ReLUs mod 2^37, transfers included."""
    circuit = relu_circuit(1, 37, 12, 16)
    early, late, own = (np.zeros((37, 1000), np.uint8) for _ in range(3))

    def run() -> dict[str, float]:
        programs = (
            run_garbler(session.garbler, circuit, early, late),
            run_evaluator(session.evaluator, circuit, 37, own),
        )
        _, transcript = run_local(PAIR, programs, step=Step.INFER)
        spent = spent_s(transcript)
        return {"garbler": 1e3 * spent[Role.QUERIER], "evaluator": 1e3 * spent[Role.ANSWERER]}

    return run


def spent_s(transcript: Any) -> dict[Role, float]:
    spent = dict.fromkeys(PAIR, 0.0)
    for node in transcript:
        if isinstance(node, Compute):
            spent[node.role] += node.seconds
    return spent


def timed(call: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    call()
    return time.perf_counter() - started_s


def measure(repeats: int) -> dict[str, Any]:
    session = set_up()
    relu = relu_circuit(1, 32, 12, 16)
    wide = gates(relu, lanes_per_key(relu, session.garbler.hash))
    argmax = argmax_circuit(10, 32)
    voting = gates(argmax, lanes_per_key(argmax, session.garbler.hash))
    sides = transfers(session)
    pieces: dict[str, Callable[[], Any]] = {
        "aes": aes_ecb(),
        **wide,
        **{f"argmax_{name}": voting[name] for name in ("garble_mand_s", "evaluate_mand_s")},
        "mitccrh_garble_mand_s": gates(argmax, lanes_per_key(argmax, Hash.MITCCRH))["garble_mand_s"],
        **sides,
        "argmax_us": in_a_row(one_argmax(session)),
        "relu1000_ms": thousand_relus(session),
    }
    found: dict[str, list[Any]] = {name: [] for name in pieces}
    for repeat in range(repeats + 1):
        for name, piece in pieces.items():
            value = piece()
            if repeat:  # the first round warms up
                found[name].append(value)
    a = median(found["aes"])
    result = {
        "aes_ecb_mblocks_s": a,
        **{name: median(found[name]) for name in wide},
        "argmax_garble_mand_s": median(found["argmax_garble_mand_s"]),
        "argmax_evaluate_mand_s": median(found["argmax_evaluate_mand_s"]),
        "mitccrh_garble_mand_s": median(found["mitccrh_garble_mand_s"]),
        "cot_m_s": min(median(found["sender"]), median(found["receiver"])),
        "argmax_us": medians(found["argmax_us"]),
        "relu1000_ms": medians(found["relu1000_ms"]),
    }
    rates = [name for name in result if name.endswith("_s") and name != "aes_ecb_mblocks_s"]
    ratios = {name: result[name] / a for name in rates}
    return {**result, "ratio_to_aes": ratios, "host": host(), "versions": versions()}


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {side: median(row[side] for row in rows) for side in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    found = measure(arguments.repeats)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for name, ratio in found["ratio_to_aes"].items():
        print(
            f"{name:28s} {found[name]:8.1f} M/s   {ratio:.3f} of AES-ECB ({found['aes_ecb_mblocks_s']:.0f} M blocks/s)"
        )
    for name in ("argmax_us", "relu1000_ms"):
        print(f"{name:28s} " + ", ".join(f"{side} {value:.3g}" for side, value in found[name].items()))


if __name__ == "__main__":
    main()
