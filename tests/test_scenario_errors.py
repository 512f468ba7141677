"""What is wrong with a scenario is said on one line, all of it; the command line is tried with the same in test_cli."""

from pathlib import Path
from typing import Any

import pytest

from capcsim.errors import ScenarioError
from capcsim.scenario import load_scenario, shipped_scenarios
from tests.test_scenario import CONFIDENT, Build

# What is wrong, the changes, and what the error must say; the command line is tried with the same in test_cli.
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("unknown section", {"privat": {}}, r"privat = \{\}: no such key; did you mean privacy\?"),
    ("unknown key", {"privacy.sigmar": 1.0}, r"privacy\.sigmar = 1\.0: no such key; did you mean privacy\.sigma\?"),
    ("missing unit", {"network.latency": 0.1}, r"did you mean network\.latency_s\?"),
    (
        "wrong unit",
        {"network.latency_s": "20 ms"},
        r"network\.latency_s = '20 ms': a number from 0 to 3600, in seconds",
    ),
    ("wrong unit of a rate", {"network.party.up_bps": "1 Gbit"}, r"a number from 1 to 1e\+15, in bits per second"),
    ("wrong type", {"parties.count": "many"}, r"parties\.count = 'many': a whole number"),
    ("a truth value", {"privacy.epsilon": True}, r"privacy\.epsilon = true: a number above 0"),
    ("half a party", {"parties.count": 2.5}, r"parties\.count = 2\.5: a whole number"),
    ("a section that is a value", {"models": 3}, r"models = 3: "),
    ("one party", {"parties.count": 1}, r"parties\.count = 1: a whole number from 2 to 1000000"),
    ("no querier", {"parties.queriers": 0}, r"parties\.queriers = 0: a whole number from 1"),
    ("more queriers than parties", {"parties.queriers": 9}, r"parties\.queriers = 9: at most parties\.count = 8"),
    ("negative latency", {"network.latency_s": -0.1}, r"network\.latency_s = -0\.1: a number from 0 to 3600"),
    ("no bandwidth", {"network.party.down_bps": 0}, r"network\.party\.down_bps = 0: a number from 1 to 1e\+15"),
    ("no noise", {"privacy.sigma": 0}, r"privacy\.sigma = 0: a number from 0\.001 to 100000"),
    ("noise that is no number", {"privacy.sigma": float("nan")}, r"privacy\.sigma = nan: a number from 0\.001"),
    ("too much noise", {"privacy.sigma": 1e6}, r"privacy\.sigma = 1000000\.0: a number from 0\.001 to 100000"),
    (
        "votes that wrap",
        {"parties.count": 10**6, "parties.virtual_per_party": 3000, "data.train_per_party": 3000},
        r"parties\.count = 1000000: fewer than 715827: .*2\^32",
    ),
    ("delta of one", {"privacy.delta": 1.0}, r"privacy\.delta = 1\.0: a number above 0 and below 1"),
    ("no budget", {"privacy.epsilon": 0.0}, r"privacy\.epsilon = 0\.0: a number above 0"),
    (
        "unknown mechanism",
        {"privacy.mechanism": "exponential"},
        r"'exponential': 'gnmax', 'lnmax' or 'confident-gnmax'",
    ),
    ("a mechanism's slip", {"privacy.mechanism": "gnmx"}, r"did you mean gnmax\?"),
    ("Laplace without a scale", {"privacy.mechanism": "lnmax"}, r"privacy\.scale is missing: .*for lnmax"),
    ("both noises", {"privacy.scale": 3.0}, r"privacy\.scale = 3\.0: remove it: gnmax takes privacy\.sigma; .*'lnmax'"),
    (
        "another's noise",
        {"privacy.mechanism": "lnmax", "privacy.scale": 3.0},
        r"privacy\.sigma = 1\.0: remove it: lnmax takes privacy\.scale; only privacy\.mechanism = 'gnmax' or 'conf",
    ),
    (
        "another's noise only",
        {"privacy.mechanism": "lnmax"},
        r"for lnmax, in place of privacy\.sigma \(--set privacy\.sigma= removes it\): discrete Laplace noise",
    ),
    (
        "Confident without a threshold",
        {"privacy.mechanism": "confident-gnmax"},
        r"privacy\.threshold and privacy\.sigma1 are missing: .*for confi",
    ),
    (
        "a threshold for nothing",
        {"privacy.threshold": 5},
        r"privacy\.threshold = 5: remove it: gnmax takes privacy\.sigma",
    ),
    ("half a vote", CONFIDENT | {"privacy.threshold": 2.5}, r"privacy\.threshold = 2\.5: a whole number"),
    ("a group of all", {"privacy.corrupted_parties": 8}, r"corrupted_parties = 8: fewer than parties\.count = 8"),
    (
        "a budget that rounds leak past",
        {"queries.rounds": 2},
        r"budget_scope = 'querier': 'coalition' or 'party': in a l",
    ),
    ("a weak class twice", {"data.weak_classes": [1, 1]}, r"data\.weak_classes = \[1, 1\]: each class once"),
    (
        "unknown scope",
        {"privacy.budget_scope": "world"},
        r"budget_scope = 'world': 'querier', 'coalition' or 'party'",
    ),
    (
        "unknown analysis",
        {"privacy.analysis": "theorem6"},
        r"privacy\.analysis = 'theorem6': .*did you mean theorem6-mironov\?",
    ),
    (
        "unknown model",
        {"models.kinds": ["vgg-77"]},
        r"models\.kinds\.0 = 'vgg-77': 'logistic', .* 'random-forest' or text like 'package\.module:factory'; "
        r"did you mean vgg-7\?$",
    ),
    ("half a factory", {"models.kinds": ["mine:"]}, r"models\.kinds\.0 = 'mine:': .* text like 'package\.module:fac"),
    ("a path", {"models.kinds": ["a/mine.py:make"]}, r"'a/mine\.py:make': .* text like 'package\.module:fac"),
    ("no model", {"models.kinds": []}, r"models\.kinds = \[\]: a list in brackets, .* of at least 1: 'logistic'"),
    ("more queries than samples", {"queries.per_querier": 31}, r"at most data\.pool_per_querier = 30"),
    ("empty batches", {"queries.batch": 0}, r"queries\.batch = 0: a whole number from 1 to 1000000"),
    ("too few samples a shard", {"parties.virtual_per_party": 41}, r"at most data\.train_per_party = 40"),
    ("npz without a path", {"data.source": "npz"}, r"data\.path is missing: a file for npz: arrays x and y$"),
    (
        "a path without npz",
        {"data.path": "x.npz"},
        r"data\.path = 'x\.npz': remove it: only data\.source = 'npz', 'csv' or 'parquet' takes it$",
    ),
    ("estimates", {"protocol.execute": "none"}, r"protocol\.execute = 'none': .*do not exist yet"),
    ("four samples", {"protocol.samples": 4}, r"protocol\.samples = 4: a whole number from 5"),
    ("waiting for ever", {"faults.drop_probability": 0.1}, r"protocol\.deadline_s is missing: .*wait for ever"),
    ("quorum without a deadline", {"protocol.quorum": 0.5}, r"protocol\.deadline_s is missing: .*when time is up"),
    (
        "certain loss",
        {"faults.drop_probability": 1.0},
        r"faults\.drop_probability = 1\.0: a number of at least 0 and below 1",
    ),
    (
        "a machine without cores",
        {"machines.party": {}},
        r"machines\.party\.cores is missing: a whole number from 1 to 4096",
    ),
    ("negative price", {"prices.per_core_hour": -1.0}, r"prices\.per_core_hour = -1\.0: a number from 0"),
    ("negative seed", {"seed": -1}, r"seed = -1: a whole number of at least 0 and below"),
]


@pytest.mark.parametrize(("changes", "says"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_is_wrong_is_said_in_one_line(scenario: Build, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ScenarioError, match=says) as caught:
        scenario(changes)
    assert "\n" not in str(caught.value)


# Parts of the smoke scenario, what stands there instead, and what the error must say: all of it, on one line.
SEVERAL: list[tuple[str, dict[str, str], list[str]]] = [
    (
        "two keys missing",
        {"delta = 1e-5": "", "per_querier = 7": ""},
        [
            "queries.per_querier and privacy.delta are missing: per_querier is a whole number from 1",
            "delta is a number",
        ],
    ),
    (
        "a key and a section missing",
        {"[network]": "[prices]", "latency_s = 0.01": ""},
        ["network is missing: a section"],
    ),
    (
        "two keys out of range",
        {"sigma = 1.0": "sigma = 0", "count = 8": "count = 0"},
        ["privacy.sigma = 0: a number from 0.001", "parties.count = 0: a whole number from 2"],
    ),
    (
        "keys that are not there",
        {"seed = 7": "seeed = 7", "sigma = 1.0": "sigmaa = 1.0", "cores = 2 }": "cores = 2, speeed = 1 }"},
        ["did you mean seed?", "did you mean privacy.sigma?", "machines.party.speeed", "machines.guardian.speeed"],
    ),
    (
        "combinations that cannot be",
        {"queriers = 2": "queriers = 20", "per_querier = 7": "per_querier = 70"},
        ["at most parties.count = 8", "at most data.pool_per_querier = 30"],
    ),
    (
        "a mechanism that is not there, beside what all of them have",
        {'mechanism = "gnmax"': 'mechanism = "lnmx"\nscale = 0', "epsilon = 50.0": "epsilon = 0", "delta = 1e-5": ""},
        [
            "privacy.delta is missing: a number",
            "privacy.mechanism = 'lnmx': 'gnmax', 'lnmax' or 'confident-gnmax'; did you mean lnmax?; also privacy.eps",
            "privacy.epsilon = 0: a number above 0",
        ],
    ),
    (
        "no source",
        {'source = "digits"': "path = 3", "evaluation = 200": ""},
        ["data.source and data.evaluation are missing: source is 'digits', 'breast_cancer', 'mnist'"],
    ),
    (
        "keys of other kinds",
        {
            "sigma = 1.0": "sigma = 1.0\nthreshold = 3",
            'source = "digits"': 'source = "csv"\npath = "a.csv"\nfolder = "b"',
        },
        [
            "privacy.threshold = 3: remove it: gnmax takes privacy.sigma",
            "data.folder = ",
            "csv or parquet takes data.path",
        ],
    ),
    (
        "a list for a section",
        {'[data]\nsource = "digits"': '[[data]]\nsource = "digits"'},
        ["data = [{", "a section with"],
    ),
    (
        "a section for a value",
        {"sigma = 1.0": "sigma = { votes = 1 }"},
        ["privacy.sigma = {'votes': 1}: a number from"],
    ),
    ("a value for a list", {'kinds = ["logistic", "mlp"]': 'kinds = "mlp"'}, ["models.kinds = 'mlp'", "mean ['mlp']?"]),
    (
        "kinds of a union",
        {'backend = "plaintext"': "options = { a = [1] }"},
        ["options.a = [1]: true or false, a whole"],
    ),
    ("a date", {"sigma = 1.0": "sigma = 2026-01-01"}, ["privacy.sigma = 2026-01-01: a number"]),
    (
        "a number of many digits",
        {"count = 8": f"count = 1{'0' * 400}"},
        ["a number of 400 digits: a whole number from 2"],
    ),
    ("a hexadecimal of many digits", {"count = 8": f"count = 0x1{'0' * 9999}"}, ["a number of 12040 digits"]),
    ("a float of many digits", {"sigma = 1.0": f"sigma = 1{'0' * 400}"}, ["privacy.sigma = a number of 400 digits"]),
]


@pytest.mark.parametrize(("changes", "says"), [case[1:] for case in SEVERAL], ids=[case[0] for case in SEVERAL])
def test_all_that_is_wrong_is_said_at_once(tmp_path: Path, changes: dict[str, str], says: list[str]) -> None:
    text = shipped_scenarios()["smoke"].read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(str(tmp_path / "mine.toml"))
    told = str(caught.value)
    assert told.startswith("mine.toml: ")
    assert "\n" not in told
    assert "pydantic" not in told
    assert "Input should" not in told
    for words in says:
        assert words in told, told
