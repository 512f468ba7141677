"""What CaPC adds to confidential inference (paper, section 4.5): steps 1c, 2 and 3 beside steps 1a and 1b.

Run: python benchmarks/overhead.py [--json] [--model lenet] [--batch 1] [--parties 50] [--repeats 7]. For each backend,
on this machine: CPU of all roles, bytes, and time of both roles. The paper says that the rest is negligible beside
inference. Step 3 runs once a query, all other steps once for each answering party; both views are shown.
"""

import argparse
import json
from contextlib import closing
from statistics import median
from typing import Any

import numpy as np

from capcsim import registry
from capcsim.backend import Role, Step
from capcsim.choices import Choice
from capcsim.costs.cache import host, versions
from capcsim.costs.profile import profile
from capcsim.costs.transcripts import cpu_s, sent_bytes
from capcsim.crypto.shares import uniform
from capcsim.errors import CapcsimError
from capcsim.learning.models import build_model, usual_input_shape
from capcsim.privacy.mechanisms import GNMax
from capcsim.protocol.steps import count_programs, submit_programs
from capcsim.twoparty.programs import run_local

BACKENDS = ("plaintext", "crypten", "crypten:provider=third-party", "hybrid")
CLASSES = 10
SIGMA = 7.0
QUANTITIES = ("cpu_s", "bytes", "wall_s")


def of_step(step: dict[str, Any]) -> dict[str, float]:
    return {
        "cpu_s": sum(step["cpu_s"].values()),
        "bytes": sum(step["bytes"].values()),
        "wall_s": step["wall_s"],
    }


def aggregate(batch: int, voters: int, repeats: int) -> dict[str, dict[str, float]]:
    """Step 2, the same for every backend: parties hand in shares, the guardian fixes the set and draws the noise."""
    shares = uniform((voters, batch, CLASSES), 32)
    runs: dict[str, list[dict[str, float]]] = {"per_party": [], "once": []}
    for _ in range(repeats + 1):
        pair = (Role.ANSWERER, Role.GUARDIAN), submit_programs(shares[0], np.zeros_like(shares[0]))
        last = (Role.QUERIER, Role.GUARDIAN), count_programs(shares, range(voters), GNMax(SIGMA, 1))
        for name, (roles, programs) in (("per_party", pair), ("once", last)):
            _, transcript = run_local(roles, programs, step=Step.AGGREGATE)
            spent_s = sum(cpu_s(transcript).values())
            sent = sum(sent_bytes(transcript).values())
            runs[name].append({"cpu_s": spent_s, "bytes": sent, "wall_s": spent_s})
    return {name: {key: median(row[key] for row in found[1:]) for key in QUANTITIES} for name, found in runs.items()}


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Costs of one backend: inference, and all after it, per answering party and per query."""
    choice, voters = Choice.parse(name), arguments.parties - 1
    model = build_model(arguments.model, usual_input_shape(arguments.model), CLASSES, (100,), seed=0).eval()
    with closing(registry.load(choice.backend, choice.options)) as backend:
        found = profile(backend, model, arguments.model, batch=arguments.batch, repeats=arguments.repeats)
    steps = {step: of_step(row) for step, row in found["steps"].items()}
    step_2 = aggregate(arguments.batch, voters, arguments.repeats)
    row: dict[str, Any] = {"backend": name, "security": found["security"], "steps": {**steps, "aggregate": step_2}}
    for view, pairs in (("one_answering_party", 1), ("all_parties", voters)):
        row[view] = {}
        for key in QUANTITIES:
            inference = pairs * steps["infer"][key]
            rest = pairs * (steps["argmax"][key] + step_2["per_party"][key])
            rest += step_2["once"][key] + steps["release"][key]
            row[view][key] = {"inference": inference, "rest": rest, "share_of_rest": rest / (inference + rest)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", default="cryptonet-relu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--parties", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--backends", default=",".join(BACKENDS))
    arguments = parser.parse_args()
    try:
        rows = [measure(name, arguments) for name in arguments.backends.split(",")]
    except CapcsimError as error:
        parser.error(str(error))
    if arguments.json:
        print(json.dumps({"rows": rows, "host": host(), "versions": versions()}, indent=2))
        return
    print(f"{arguments.model}, batch {arguments.batch}: steps 1c, 2, 3 as a share of all, CPU / bytes / time")
    for row in rows:
        shares = {
            view: " / ".join(f"{100 * row[view][key]['share_of_rest']:5.1f} %" for key in QUANTITIES)
            for view in ("one_answering_party", "all_parties")
        }
        print(
            f"{row['backend']:30s} {row['security']:32s} one answering party {shares['one_answering_party']}"
            f"   {arguments.parties - 1} of them {shares['all_parties']}"
        )
        for part in ("inference", "rest"):
            spent_s, sent, wall_s = (row["one_answering_party"][key][part] for key in QUANTITIES)
            print(f"{'':30s} {part:9s} {1e3 * spent_s:7.1f} ms CPU, {sent / 1e6:7.3f} MB, {1e3 * wall_s:7.1f} ms")


if __name__ == "__main__":
    main()
