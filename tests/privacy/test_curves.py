"""Epsilons on disk: what is read is what was worked out, and nothing else."""

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from math import inf, nextafter, pi
from pathlib import Path

import numpy as np
import pytest

from capcsim.caches import Cache
from capcsim.errors import CapcsimWarning
from capcsim.privacy import curves
from capcsim.privacy.accountant import Accountant
from capcsim.privacy.curves import Curves
from capcsim.privacy.mechanisms import ConfidentGNMax, GNMax, LNMax, Mechanism
from tests.environment import importing_from

DELTA = 1e-5
SEVEN = GNMax(7.0)
COUNTING = """
import json, sys
from capcsim.privacy import accountant
from capcsim.privacy.mechanisms import ConfidentGNMax, GNMax, LNMax
computed, real = [], accountant.epsilon_of_losses
accountant.epsilon_of_losses = lambda *given: computed.append(given) or real(*given)
found = []
for mechanism in (GNMax(7.0), LNMax(20.0), ConfidentGNMax(7.0, 30, 20.0)):
    asked = accountant.Accountant(mechanism, 1e-5)
    found += [asked.epsilon(3), asked.epsilon(40), asked.affordable(5.0, 100)]
print(json.dumps([found, len(computed), "numba" in sys.modules]))
"""
ALONE = """
import sys
from capcsim.privacy import accountant, mechanisms
accountant.Accountant(mechanisms.GNMax(7.0), 1e-5).epsilon(3)
print(*(name for name in sys.modules if name.startswith("capcsim.")))
"""


def process(program: str, cache: Path) -> str:
    """What a program prints that has this cache to itself."""
    environment = importing_from(CAPCSIM_CACHE=str(cache))
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "curves"


@pytest.fixture
def opened(folder: Path) -> Callable[[], Curves]:
    """What another process would see, each time."""
    return lambda: Curves(Cache("curves", folder))


class Asked:
    """Asks for epsilons, which are 0.1 a query, and counts those that had to be worked out."""

    def __init__(self) -> None:
        self.computed: list[int] = []

    def __call__(self, known: Curves, labels: int, mechanism: Mechanism = SEVEN, delta: float = DELTA) -> float:
        return known.epsilon("test", mechanism, delta, labels, 0, lambda: self.computed.append(labels) or labels * 0.1)


def test_a_second_process_works_out_nothing_and_loads_no_compiler(tmp_path: Path) -> None:
    first, again = (json.loads(process(COUNTING, tmp_path)) for _ in range(2))
    assert first[1] > 10
    assert first[2]
    assert again == [first[0], 0, False]


def test_what_is_read_is_exactly_what_was_worked_out(opened: Callable[[], Curves]) -> None:
    values = [0.1 + 0.2, pi * 1e-300, nextafter(30.0, 31.0), 5e-324, 1e308, inf, 0.0]
    for labels, value in enumerate(values):
        first = opened().epsilon("test", SEVEN, DELTA, labels, 2, lambda value=value: value)
        assert first == value
    known = opened()
    assert [known.epsilon("test", SEVEN, DELTA, labels, 2, pytest.fail) for labels in range(len(values))] == values


def test_analysis_mechanism_delta_and_numbers_are_kept_apart(opened: Callable[[], Curves]) -> None:
    keys = [
        (analysis, mechanism, delta, *numbers)
        for analysis in ("one", "other")
        for mechanism in (
            SEVEN,
            GNMax(7.0, 2),
            LNMax(7.0),
            ConfidentGNMax(7.0, 30, 20.0),
            ConfidentGNMax(7.0, 31, 20.0),
        )
        for delta in (1e-5, 1e-6)
        for numbers in ((3, 0), (0, 3), (2, 1))
    ]
    numbers, known = count(1.0), opened()
    found = [known.epsilon(*key, lambda: next(numbers)) for key in keys]
    known.write()
    assert len(set(found)) == len(keys)
    again = opened()
    assert [again.epsilon(*key, pytest.fail) for key in keys] == found


@pytest.mark.parametrize("changed", ["source_digest", "versions"])
def test_another_source_or_version_works_it_out_anew(
    opened: Callable[[], Curves], monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    ask = Asked()
    ask(opened(), 3)
    ask(opened(), 3)
    assert ask.computed == [3]
    monkeypatch.setattr(curves, changed, lambda names: "another")
    ask(opened(), 3)
    assert ask.computed == [3, 3]


def test_all_that_works_an_epsilon_out_is_in_its_name(tmp_path: Path) -> None:
    """Whatever of ours the accountant loads, but for what errors, folders and compiled code are made of."""
    done = process(ALONE, tmp_path)
    others = {"privacy", "caches", "compiled", "errors", "files", "paths"}
    assert set(done.split()) - {f"capcsim.{name}" for name in others} == set(curves.SOURCES)


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "foreign", "gone"])
def test_a_damaged_file_counts_as_absent_and_is_mended(folder: Path, opened: Callable[[], Curves], damage: str) -> None:
    ask = Asked()
    expected = ask(opened(), 3)
    (path,) = folder.iterdir()
    content = path.read_bytes()
    assert b"0.3" in content
    broken = {"cut": content[:-5], "changed": content.replace(b"0.3", b"0.2"), "empty": b"", "foreign": b"{}\n[1]"}
    path.unlink()
    if damage != "gone":
        path.write_bytes(broken[damage])
    assert ask(opened(), 3) == expected
    assert ask.computed == [3, 3]
    assert path.read_bytes() == content


def test_what_two_processes_find_at_once_is_kept_of_both(opened: Callable[[], Curves]) -> None:
    ask, one, other = Asked(), opened(), opened()
    ask(one, 1)
    ask(other, 2)
    one.write()
    assert ask.computed == [1, 2]
    later = opened()
    assert ask(later, 1) + ask(later, 2) == pytest.approx(0.3)
    assert ask.computed == [1, 2]


def test_many_at_once_are_written_once_and_again_after_a_pause(
    opened: Callable[[], Curves], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, written, known, ask = [100.0], [], opened(), Asked()
    monkeypatch.setattr(curves.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Cache, "write", lambda self, name, content: bool(written.append(content)) or True)
    for labels in range(50):
        ask(known, labels)
        clock[0] += 0.01
    assert len(written) == 1
    clock[0] += 1.0
    ask(known, 50)
    assert len(written) == 2
    assert all(str([labels, 0]).removesuffix("]").encode() in written[-1] for labels in range(51))
    known.write()
    assert len(written) == 2


def test_where_nothing_can_be_written_one_warning_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    known, ask = Curves(Cache("curves", tmp_path / "file" / "curves")), Asked()
    with pytest.warns(CapcsimWarning, match=r"file.*: Not a directory; .*cannot be kept"):
        expected = ask(known, 3)
    # Warnings are errors here.
    assert ask(known, 3) == expected
    ask(known, 4, GNMax(8.0))
    known.write()
    assert ask.computed == [3, 4]


def test_its_user_alone_may_read_them(folder: Path, opened: Callable[[], Curves]) -> None:
    Asked()(opened(), 3)
    (path,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_cheap_or_wrong_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capcsim.privacy.accountant.user_curves", lambda: pytest.fail("it was asked"))
    assert Accountant(ConfidentGNMax(7.125, 30, 20.0), DELTA).epsilon(3, 4) > 0
    assert Accountant(GNMax(7.125), DELTA).epsilon(0) == 0
    for numbers in ((-1, 0), (1, 1)):
        with pytest.raises(ValueError, match=r"negative|every query"):
            Accountant(GNMax(7.125), DELTA).epsilon(*numbers)


def test_numbers_of_numpy_are_numbers(opened: Callable[[], Curves]) -> None:
    ask, known = Asked(), opened()
    ask(known, np.int64(3), GNMax(np.float32(7.0)))  # type: ignore[arg-type]
    ask(known, 3, GNMax(np.float32(7.0)))  # type: ignore[arg-type]
    assert ask.computed == [3]
