"""Backends by entry point, with a third party's package that is really built and installed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from capcsim import conformance, registry
from capcsim.backend import OFFERS
from capcsim.costs import cache
from capcsim.errors import BackendNotFound, BackendUnavailable, InputError
from tests.environment import importing_from

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "{name}"
version = "0.3"
[project.optional-dependencies]
more = ["a-module-that-is-not-there>=2", "another"]
all = ["a.module.that.is.not.there>=2", "another", "yet-another"]
[project.entry-points."capcsim.backends"]
{entries}
[tool.hatch.build.targets.wheel]
packages = ["{module}"]
"""

# A backend that only infers: it brings neither argmax nor release.
TINY = """
from dataclasses import replace
from types import SimpleNamespace
import numpy as np
from capcsim.backend import Shares, Role, Step
from capcsim.twoparty.programs import Recv, Send, run_local
from capcsim.crypto.shares import share
from capcsim.twoparty.voting import Voting
from capcsim_plaintext import PlaintextBackend

class Tiny(Voting):
    name = "tiny"
    capabilities = replace(PlaintextBackend.capabilities, leaks={}, offers=frozenset())
    def __init__(self): self._plain = PlaintextBackend()
    def prepare(self, model, *, seed): return self._plain.prepare(model, seed=seed)
    def reference(self, prepared, x): return self._plain.reference(prepared, x)
    def open(self, querier, prepared):
        voting, transcript = self.open_voting(Role.ANSWERER if prepared else Role.GUARDIAN)
        return SimpleNamespace(prepared=prepared, voting=voting), transcript
    def infer(self, pair, x):
        session = pair.prepared
        logits = share(self.reference(session, x), session.public.ring_bits)
        def querier():
            yield Send(x.tobytes())
            yield Recv()
        def answerer():
            yield Recv()
            yield Send(logits[0].tobytes())
        _, transcript = run_local((Role.QUERIER, Role.ANSWERER), (querier(), answerer()), step=Step.INFER)
        return Shares(logits, session.public.ring_bits, session.public.fraction_bits), transcript
    def close(self): pass

class Needy(Tiny):
    name = "needy"
    capabilities = replace(Tiny.capabilities, needs=("numpy", "a_module_that_is_not_there"))

class Incomplete:
    name = "incomplete"
    capabilities = Tiny.capabilities

class Boastful(Tiny):
    name = "boastful"
    capabilities = replace(Tiny.capabilities, offers=frozenset({"ahead"}))

class Dreamy(Tiny):
    name = "dreamy"
    capabilities = replace(Tiny.capabilities, offers=frozenset({"teleportation"}))
"""


def install(folder: Path, name: str, module: str, entries: str, source: str) -> Path:
    """Build and install a package for good into a folder of its own."""
    project, target = folder / name, folder / "site"
    (project / module).mkdir(parents=True)
    (project / "pyproject.toml").write_text(PYPROJECT.format(name=name, module=module, entries=entries))
    (project / module / "__init__.py").write_text(source)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(project)], check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("third-party")
    entries = "\n".join(
        [
            'tiny = "tiny_backend:Tiny"',
            'needy = "tiny_backend:Needy"',
            'incomplete = "tiny_backend:Incomplete"',
            'boastful = "tiny_backend:Boastful"',
            'dreamy = "tiny_backend:Dreamy"',
            'broken = "tiny_backend.nothing:Nothing"',
        ]
    )
    return install(folder, "tiny-backend", "tiny_backend", entries, TINY)


@pytest.fixture
def third_party(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(site))
    return iter(())


def test_plaintext_is_found_like_any_other() -> None:
    status = registry.status("plaintext")
    assert status.available
    assert status.package == "capcsim"
    assert registry.load("plaintext").name == "plaintext"


def test_an_unknown_backend_lists_the_known_ones() -> None:
    with pytest.raises(BackendNotFound, match=r"no backend is called 'seal'; installed: .*plaintext"):
        registry.load("seal")


def test_a_third_party_backend_loads(third_party: None) -> None:
    assert "tiny" in registry.names()
    status = registry.status("tiny")
    assert (status.package, status.version, status.available) == ("tiny-backend", "0.3", True)
    assert registry.load("tiny").name == "tiny"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("needy", "a_module_that_is_not_there cannot be imported; remedy: pip install 'tiny-backend\\[more\\]'$"),
        (
            "incomplete",
            "it lacks argmax, close, infer, open, prepare, .*implement them in tiny_backend.Incomplete",
        ),
        (
            "boastful",
            "offer 'ahead', and it has no prepare_ahead; .*implement it in tiny_backend.Boastful, or leave it",
        ),
        ("dreamy", "it offers 'teleportation'; known: programs, ahead, details"),
        ("broken", "ModuleNotFoundError.*install what tiny-backend needs"),
    ],
)
def test_a_backend_that_cannot_be_used_says_what_is_missing(third_party: None, name: str, says: str) -> None:
    with pytest.raises(BackendUnavailable, match=says):
        registry.load(name)
    assert name in registry.names()


def test_a_backend_that_only_infers_and_declares_nothing_is_complete(third_party: None) -> None:
    backend = registry.load("tiny")
    assert not any(offer.of(backend) or offer.is_in(backend) for offer in OFFERS)
    assert [result for result in conformance.run_checks(backend) if not result.passed] == []


def test_two_packages_with_one_name_are_refused(
    third_party: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = install(tmp_path, "other-backend", "other_backend", 'tiny = "other_backend:Other"', "class Other: pass")
    monkeypatch.syspath_prepend(str(other))
    with pytest.raises(BackendUnavailable, match="other-backend and tiny-backend both offer it"):
        registry.load("tiny")


@pytest.mark.slow
def test_a_third_party_backend_runs_the_main_job(site: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "capcsim",
        "run",
        "smoke",
        "--backend",
        "tiny",
        "--json",
        "-o",
        str(tmp_path / "r"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=importing_from(site), check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["backend"] == "tiny"
    assert summary["argmax"] == "Yao's garbled circuits"
    assert all(row["labels_bought"] == 7 for row in summary["queriers"])


def test_missing_requirements_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.missing_requirements() == ()
    present = registry._installed
    monkeypatch.setattr(registry, "_installed", lambda text: not text.startswith("tenseal") and present(text))
    assert [text.partition(">")[0] for text in registry.missing_requirements()] == ["tenseal"]


HIDDEN = "import sys; sys.modules['crypten'] = None; from capcsim.cli import main; sys.argv[1:] = {}; main()"
EXTRA = "pip install 'capcsim[crypten]'"


def without_crypten(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of capcsim's where CrypTen, which a plain installation leaves out, cannot be imported."""
    command = [sys.executable, "-c", HIDDEN.format(list(arguments))]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_crypten_backends_tells_how_to_get_it() -> None:
    rows = {row["name"]: row for row in json.loads(without_crypten("backends", "--json").stdout)["backends"]}
    assert (rows["crypten"]["available"], rows["crypten"]["missing"]) == (False, ["crypten"])
    assert rows["crypten"]["install"] == EXTRA
    assert rows["plaintext"]["available"]
    printed = without_crypten("backends").stdout
    assert f"crypten is not ready: crypten cannot be imported; remedy: {EXTRA}" in printed.splitlines()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("check", "crypten"), marks=pytest.mark.slow),
        pytest.param(("profile", "--backend", "crypten", "--json"), marks=pytest.mark.slow),
        ("run", "smoke", "--backend", "crypten"),
        pytest.param(
            ("compare", "smoke", "--backends", "plaintext,crypten:provider=third-party"), marks=pytest.mark.slow
        ),
    ],
)
def test_without_crypten_what_needs_it_ends_with_the_remedy(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = without_crypten(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last == f"capcsim: backend 'crypten' cannot be used: crypten cannot be imported; remedy: {EXTRA}"
    assert "training" not in done.stderr


@pytest.mark.slow
def test_without_crypten_the_others_work() -> None:
    assert json.loads(without_crypten("check", "plaintext", "--json").stdout)["passed"]


def test_versions_leave_out_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIBRARIES", (*cache.LIBRARIES, "a-library-that-is-not-there"))
    assert set(cache.versions()) - {"crypten"} == {"python", "capcsim", "numpy", "torch", "numba", "tenseal"}


def test_options_reach_the_backend_and_wrong_ones_are_named() -> None:
    assert registry.load("hybrid", {"processes": False, "pool_bytes": 5}).name == "hybrid"
    with pytest.raises(InputError, match="backend 'hybrid' has no option 'poolbytes'; it takes security, order, pool"):
        registry.load("hybrid", {"poolbytes": 5})
    with pytest.raises(InputError, match="backend 'plaintext' has no option 'security'; it takes none"):
        registry.load("plaintext", {"security": 8192})
    with pytest.raises(InputError, match="security = 4096: choose one of"):
        registry.load("hybrid", {"security": 4096})
