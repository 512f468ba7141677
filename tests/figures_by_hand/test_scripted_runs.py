"""`run --json`, `compare --json` and `profile` from end to end, over backends with scripted costs.

A sample is its class, and the two querying parties own none of class 2, which the two others know: a model is right on
the classes that it has seen and on no other. So accuracies, labels and votes are known beforehand.
"""

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from capcsim.choices import Choice, parse_networks
from capcsim.cli import main
from capcsim.costs.profile import profile
from capcsim.privacy.accountant import Accountant
from capcsim.privacy.mechanisms import GNMax
from capcsim.record import Record
from capcsim.scenario import Scenario, parse_scenario
from capcsim.study.compare import RESULTS, compare, times
from capcsim.study.metrics import View, value
from tests.figures_by_hand.outcome import gaussian_epsilon, hand_made, leaves
from tests.figures_by_hand.scripted import KEY_BYTES, LABEL_BYTES, QUERY_BYTES, VOTE_BYTES, Clock, Script, Scripted

Tree = dict[str, Any]
SIGMA, DELTA = 0.2, 1e-5
# Of each querying party: three batches of three queries, three answering parties, three classes.
QUERIERS, BATCHES, SIZE, ANSWERING, CLASSES = 2, 3, 3, 3, 3
# The test part is all asked about or judged on: the classes of the one give those of the other.
EVALUATION = 90
TEST_SAMPLES = QUERIERS * BATCHES * SIZE + EVALUATION
# Step 2 really runs and is really timed: microseconds of work, besides the scripted seconds.
REAL_WORK = {"abs": 0.2}

PLAIN = ("open", "none", Script(encode_s=0.5, infer_s=1.0, argmax_s=0.25, release_s=0.125))
THRIFTY = ("thrifty", "semi-honest", Script(encode_s=1.0, infer_s=6.0, argmax_s=2.0, release_s=3.0))
CHATTY = ("chatty", "semi-honest", Script(encode_s=0.5, infer_s=0.5, argmax_s=0.5, release_s=0.5, trips=60))
STUBBORN = ("stubborn", "semi-honest", Script(encode_s=0.5, infer_s=0.5, argmax_s=0.5, release_s=0.5))


@pytest.fixture(scope="module")
def tree(smoke_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    owned, rest = (np.arange(samples) % CLASSES for samples in (180, TEST_SAMPLES))
    file = tmp_path_factory.mktemp("data") / "classes.npz"
    np.savez(file, x_train=np.eye(CLASSES)[owned], y_train=owned, x_test=np.eye(CLASSES)[rest], y_test=rest)
    made: Tree = json.loads(json.dumps(smoke_tree))
    sizes = {"train_per_party": 45, "pool_per_querier": SIZE * BATCHES, "evaluation": EVALUATION}
    made["data"] = {"source": "npz", "path": str(file), **sizes, "weak_classes": [2], "weak_ratio": 0.0}
    made["parties"] = {"count": 1 + ANSWERING, "queriers": QUERIERS}
    made["models"] = {"kinds": ["logistic"], "epochs": 150, "learning_rate": 0.05, "weight_decay": 0.0}
    made["models"] |= {"baselines": ["pooling", "fedavg"], "fedavg_rounds": 4}
    made["queries"] = {"selection": "random", "per_querier": SIZE * BATCHES, "batch": SIZE, "in_flight": 1}
    made["privacy"] |= {"sigma": SIGMA, "delta": DELTA, "epsilon": 500.0}
    made["network"]["latency_s"] = 0.25
    made["machines"] = {"party": {"cores": 4}, "guardian": {"cores": 4}}
    made["prices"] = {"per_core_hour": 3600.0, "per_gb_sent": 1e6}
    return made


@pytest.fixture(scope="module", autouse=True)
def clock(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> Iterator[Clock]:
    """With the backends under their names, and nothing measured earlier."""
    made, folder = Clock(), tmp_path_factory.mktemp("scripted")
    known = {name: (name, security, script, made) for name, security, script in (PLAIN, THRIFTY, CHATTY, STUBBORN)}

    def load(name: str, *_: Any) -> Scripted:
        return Scripted(*known[name], deaf=name == "chatty", stubborn=name == "stubborn")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("capcsim.costs.profile.time", made)
        patch.setattr("capcsim.registry.load", load)
        patch.setenv("CAPCSIM_CACHE", str(folder / "cache"))
        patch.setenv("CAPCSIM_STATE", str(folder / "state"))
        yield made


def toml(tree: Tree) -> str:
    """A section a table, with values that JSON writes as TOML does but for nested tables."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in tree.items() if not isinstance(value, dict)]
    for section, content in tree.items():
        if isinstance(content, dict):
            lines.append(f"[{section}]")
            lines += [f"{key} = {json.dumps(value).replace(': ', ' = ')}" for key, value in content.items()]
    return "\n".join(lines)


# By querying party and batch: the query and the vote by each answering party, whose share then goes to the guardian
# (uint32), which sends the counted set (one bit a voter) and the label. Keys go to the answering parties and it.
PAIR_BYTES = QUERY_BYTES + VOTE_BYTES + SIZE * CLASSES * 4
QUERIER_BYTES = BATCHES * (ANSWERING * PAIR_BYTES + 1 + LABEL_BYTES) + (ANSWERING + 1) * KEY_BYTES


@pytest.fixture(scope="module")
def run_folder(tree: Tree, clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def ran(tree: Tree, run_folder: Path) -> Tree:
    """What `capcsim run --json` prints."""
    scenario = run_folder / "mine.toml"
    scenario.write_text(toml({**tree, "protocol": {**tree["protocol"], "backend": "thrifty"}}))
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr("sys.argv", ["capcsim", "run", str(scenario), "-o", str(run_folder / "run"), "--json"])
        with contextlib.suppress(SystemExit):
            main()
    summary: Tree = json.loads(printed.getvalue())
    return summary


def test_run_tells_what_was_known_beforehand(ran: Tree, run_folder: Path) -> None:
    script = THRIFTY[2]
    label_s, keys_s = script.label_s(0.25), script.key_s + 0.25
    for row in ran["queriers"]:
        assert (row["labels_bought"], row["label_accuracy"]) == (9, 1.0)
        # A model knows the classes that it has seen: two of three before, all of them after.
        assert row["class_accuracy_before"] == [1.0, 1.0, 0.0]
        assert row["class_accuracy_after"] == [1.0, 1.0, 1.0]
        assert row["balanced_before"] == pytest.approx(2 / 3)
        assert row["balanced_after"] == row["accuracy_after"] == 1.0
        assert row["accuracy_before"] == pytest.approx(accuracy_before(ran))
        assert row["gain"] == pytest.approx(1 - accuracy_before(ran))
        assert row["labels"] == true_labels(run_folder, row["querier"])
        assert row["queries_per_class"] == [row["labels"].count(label) for label in range(CLASSES)]
        assert row["epsilon"] == pytest.approx(Accountant(GNMax(SIGMA), DELTA).epsilon(9))
        assert row["bytes"] == QUERIER_BYTES
        for key in ("latency_median_s", "latency_max_s"):
            assert row[key] == pytest.approx(label_s, **REAL_WORK)
        assert row["simulated_s"] == pytest.approx(keys_s + BATCHES * label_s, **REAL_WORK)
    assert ran["makespan_s"] == pytest.approx(keys_s + BATCHES * label_s, **REAL_WORK)
    assert ran["bytes"] == QUERIERS * QUERIER_BYTES
    assert ran["classes_fallen"] == 0.0


def accuracy_before(ran: Tree) -> float:
    """Wrong on class 2: a third of the test part, less what was asked."""
    asked = sum(row["queries_per_class"][2] for row in ran["queriers"])
    return 1 - (TEST_SAMPLES / CLASSES - asked) / EVALUATION


def true_labels(folder: Path, querier: int) -> list[int]:
    """By the samples that the record names: the class is the number's remainder."""
    rows = Record.load(folder / "run").read_table("queries").to_pylist()
    return [row["sample"] % CLASSES for row in rows if row["querier"] == querier]


def test_run_tells_what_was_executed_and_what_it_costs(ran: Tree) -> None:
    execution = ran["execution"]
    assert (execution["pairs"], execution["pairs_executed"]) == (QUERIERS * BATCHES * ANSWERING, 5)
    assert (execution["votes_compared"], execution["votes_disagreeing"]) == (5 * SIZE, 0)
    # Set-up, infer, argmax and aggregate of the one architecture; set-up, aggregate and release of the guardian.
    assert (execution["strata"], execution["strata_reused"], execution["saturation"]) == (7, 0, 0.25)
    script = THRIFTY[2]
    (spread,) = (row for row in execution["spread"] if row["step"] == "infer")
    assert (spread["size"], spread["samples"]) == (SIZE, 5)
    alike = {"querier": script.encode_s, "answerer": script.infer_s}
    assert spread["cpu_s"] == {role: dict.fromkeys(("low", "median", "high"), value) for role, value in alike.items()}
    batch_s = script.encode_s + ANSWERING * (script.infer_s + script.argmax_s) + script.release_s
    # Keys are made for the answering parties and for the guardian.
    core_s = QUERIERS * (2 * script.key_s + BATCHES * batch_s)
    assert ran["cost"]["core_h"] * 3600 == pytest.approx(core_s, abs=0.5)
    assert ran["cost"]["sent_gb"] == pytest.approx(ran["bytes"] / 1e9)
    assert ran["cost"]["price"] == pytest.approx(core_s + ran["bytes"] / 1e3, abs=0.5)
    assert ran["waiting"]["votes_asked"] == QUERIERS * BATCHES * ANSWERING


def test_run_tells_of_baselines(ran: Tree) -> None:
    pooling, fedavg = ran["baselines"]["pooling"], ran["baselines"]["fedavg"]
    assert (pooling["accuracy"], pooling["balanced"], pooling["bytes"]) == (1.0, 1.0, None)
    # Four rounds in which all four clients get and send nine weights and three biases of four bytes.
    assert fedavg["bytes"] == 4 * 4 * 2 * (9 + 3) * 4
    assert 1 / 3 <= fedavg["accuracy"] <= 1


def row_on_paper(ran: Tree, script: Script, *, hears: bool) -> Tree:
    """All numbers of a backend's row but the timed ones of step 2, and the votes that a sample of pairs gives."""
    network = {"bytes": QUERIERS * QUERIER_BYTES, "labels": QUERIERS * BATCHES * SIZE}
    times = {}
    for name, latency_s in LATENCIES_S.items():
        label_s = pytest.approx(script.label_s(latency_s), **REAL_WORK)
        makespan_s = script.key_s + latency_s + BATCHES * script.label_s(latency_s)
        times[name] = {"latency_median_s": label_s, "latency_max_s": label_s, **network}
        times[name]["makespan_s"] = pytest.approx(makespan_s, **REAL_WORK)
    sent = {"infer": {"querier->answerer": QUERY_BYTES}, "argmax": {"answerer->querier": VOTE_BYTES}}
    sent["release"] = {"guardian->querier": LABEL_BYTES}
    back = {"answerer->querier": 0} if script.trips else {}
    costs = {
        "infer": (script.encode_s + script.infer_s, {"querier": script.encode_s, "answerer": script.infer_s}),
        "argmax": (script.argmax_s, {"answerer": script.argmax_s}),
        "release": (script.release_s, {"guardian": script.release_s}),
    }
    steps = {
        step: step_on_paper(wall_s, cpu_s, sent[step] | (back if step == "infer" else {}))
        for step, (wall_s, cpu_s) in costs.items()
    }
    steps["infer"]["rounds"] = 2 * script.trips
    total_s = sum(wall_s for wall_s, _ in costs.values())
    worked_s = {"querier": script.encode_s, "answerer": script.infer_s + script.argmax_s, "guardian": script.release_s}
    total = step_on_paper(total_s, worked_s, sent["infer"] | sent["argmax"] | sent["release"])
    keys = {"querier->answerer": KEY_BYTES}
    return {
        "exact": hears,
        "steps": steps,
        "total": total | {"rounds": 2 * script.trips},
        "setup": step_on_paper(script.key_s, {"querier": script.key_s}, keys, phase="setup"),
        "details": {"saturation": 0.25},
        "networks": times,
        # What is got does not depend on the backend.
        "label_accuracy": 1.0,
        "vote_agreement": 1.0,
        "accuracy_before": pytest.approx(accuracy_before(ran)),
        "accuracy_after": 1.0,
        "epsilon": pytest.approx(Accountant(GNMax(SIGMA), DELTA).epsilon(SIZE * BATCHES)),
    }


def step_on_paper(wall_s: float, cpu_s: dict[str, float], sent: dict[str, int], phase: str = "online") -> Tree:
    times = {"wall_s": pytest.approx(wall_s)}
    cpu = {role: pytest.approx(seconds) for role, seconds in cpu_s.items()}
    return {**times, "cpu_s": cpu, "bytes": sent, "rounds": 0, "phases": {phase: times | {"bytes": sum(sent.values())}}}


COMPARED = ("backends", "networks", "host", "stages")
LATENCIES_S = {"scenario": 0.25, "lan": 0.0005, "far": 0.1}


def test_compare_tells_what_was_known_beforehand(ran: Tree, tree: Tree) -> None:
    choices = [Choice(name, {}) for name, _, _ in (PLAIN, THRIFTY, CHATTY)]
    found = compare(parse_scenario(tree), choices, parse_networks("lan,far"), repeats=3).model_dump(mode="json")
    about = {"parties": 4, "voters": 4, "queriers": 2, "labels_wanted": 18, "seed": 7, "batch": SIZE}
    assert leaves({key: value for key, value in found.items() if key not in COMPARED}) == about
    # The run before had trained and judged, and one of these backends had voted and was measured; no world is kept.
    assert found["stages"] == {"trained": 0, "asked": 2, "priced": 2, "simulated": 9, "judged": 0}
    bps = {"scenario": (100e6, 1e9), "lan": (1e9, 10e9), "far": (1e9, 10e9)}
    for name, latency_s in LATENCIES_S.items():
        party, guardian = ({"up_bps": each, "down_bps": each} for each in bps[name])
        told = {key: found["networks"][name][key] for key in ("latency_s", "party", "guardian")}
        assert told == {"latency_s": latency_s, "party": party, "guardian": guardian}
    for row, (name, security, script) in zip(found["backends"], (PLAIN, THRIFTY, CHATTY), strict=True):
        assert (row["name"], row["security"]) == (name, security)
        figures = leaves({key: value for key, value in row.items() if key != "agreement"})
        assert figures == leaves(row_on_paper(ran, script, hears=name != "chatty"))
    # Where messages are quick the one with many of them wins, elsewhere the other; the one that protects nobody never.
    assert found["fastest_protected"] == {"scenario": "thrifty", "lan": "chatty", "far": "thrifty"}


def test_a_deaf_backend_disagrees_on_every_query_of_another_class(tree: Tree, tmp_path: Path) -> None:
    """What is asked comes from a file's test part: here all of class 1, where the backend votes for class 0."""
    y = np.arange(180) % 2
    asked = np.ones(60, np.int64)
    parts = {"x_train": np.eye(2)[y], "y_train": y, "x_test": np.eye(2)[asked], "y_test": asked}
    np.savez(tmp_path / "parts.npz", **parts)
    data = {**tree["data"], "path": str(tmp_path / "parts.npz"), "evaluation": 30, "weak_classes": []}
    queries = {**tree["queries"], "per_querier": SIZE}
    scenario = parse_scenario({**tree, "data": data, "queries": queries})
    choices = [Choice(name, {}) for name in ("chatty", "thrifty", "stubborn")]
    deaf, hearing, stubborn = compare(scenario, choices, {}, repeats=1).backends
    # Of six pairs, each with one batch, five were executed.
    for row in (deaf, hearing, stubborn):
        assert row.agreement.votes == 5 * SIZE
    assert deaf.agreement.disagreements == 5 * SIZE
    assert (deaf.agreement.upper_bound_95, deaf.agreement.float32) == (1.0, 0.0)
    assert (hearing.agreement.disagreements, hearing.agreement.float32) == (0, 1.0)
    assert (stubborn.agreement.disagreements, stubborn.agreement.float32) == (0, 0.0)
    assert (hearing.label_accuracy, stubborn.label_accuracy) == (1.0, 0.0)
    # With no disagreement in 15 votes: 1 - 0.05^(1/15).
    assert hearing.agreement.upper_bound_95 == pytest.approx(1 - 0.05 ** (1 / 15))


def test_profile_tells_medians_over_the_repeats_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("capcsim.costs.profile.time", clock)
    script = Script(encode_s=0.5, infer_s=10.0, argmax_s=0.25, release_s=0.125, key_s=4.0, trips=2)
    script.more_s = chain([1000.0, 1.0, 9.0, 2.0], repeat(0.0))  # median 2, mean 4; the first is the warm-up
    backend = Scripted("slow", "semi-honest", script, clock)
    found = profile(backend, torch.nn.Sequential(torch.nn.Linear(6, 4)), "logistic", batch=3, repeats=3)
    infer = found["steps"]["infer"]
    assert infer["wall_s"] == pytest.approx(0.5 + 10.0 + 2.0)
    assert infer["cpu_s"] == pytest.approx({"querier": 0.5, "answerer": 12.0})
    assert infer["bytes"] == {"querier->answerer": QUERY_BYTES, "answerer->querier": 0}
    assert infer["rounds"] == 4
    apart = found["spread"]["infer"]
    assert (apart["repeats"], apart["wall_s"]) == (3, {"low": 11.5, "median": 12.5, "high": 19.5})
    assert apart["cpu_s"]["answerer"] == {"low": 11.0, "median": 12.0, "high": 19.0}
    assert infer["phases"]["online"] == pytest.approx({"wall_s": 12.5, "bytes": QUERY_BYTES})
    argmax, release = found["steps"]["argmax"], found["steps"]["release"]
    assert (argmax["wall_s"], argmax["cpu_s"], argmax["rounds"]) == (0.25, {"answerer": 0.25}, 0)
    assert argmax["bytes"] == {"answerer->querier": VOTE_BYTES}
    assert (release["wall_s"], release["cpu_s"], release["rounds"]) == (0.125, {"guardian": 0.125}, 0)
    assert release["bytes"] == {"guardian->querier": LABEL_BYTES}
    total = found["total"]
    assert total["wall_s"] == pytest.approx(12.5 + 0.25 + 0.125)
    assert total["cpu_s"] == pytest.approx({"querier": 0.5, "answerer": 12.25, "guardian": 0.125})
    assert total["bytes"] == {
        "querier->answerer": QUERY_BYTES,
        "answerer->querier": VOTE_BYTES,
        "guardian->querier": LABEL_BYTES,
    }
    assert total["rounds"] == 4
    setup = found["setup"]
    assert (setup["wall_s"], setup["cpu_s"]) == (4.0, {"querier": 4.0})
    assert setup["bytes"] == {"querier->answerer": KEY_BYTES}


@pytest.fixture
def everybody(scenario: Callable[..., Scenario], tmp_path: Path) -> View:
    return View(hand_made(scenario, tmp_path), range(2))


def test_a_comparison_pools_the_labels_of_all_querying_parties(everybody: View) -> None:
    assert {name: value(name, everybody) for name in RESULTS} == {
        "label_accuracy": pytest.approx((3 + 1) / (4 + 3)),
        "vote_agreement": pytest.approx((3 + 3) / (4 + 3)),
        "accuracy_before": pytest.approx((0.625 + 0.375) / 2),
        "accuracy_after": pytest.approx((0.84375 + 0.3125) / 2),
        "epsilon": pytest.approx(gaussian_epsilon(5), rel=5e-4),  # of the party with five charges, not three or eight
    }


def test_a_comparisontimes_labels_only(everybody: View) -> None:
    assert times(everybody).model_dump() == {
        "latency_median_s": 7.0,  # of 2, 3, 4, 7, 10, 11, 30
        "latency_max_s": 30.0,
        "makespan_s": 140.0,
        "bytes": 2_000_000_000,
        "labels": 7,
    }
