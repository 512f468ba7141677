"""A user's own models by the name of a factory: how it is found, and what is kept of what it makes."""

# ruff: noqa: F401, F811 (fixtures)

import pickle
from pathlib import Path

import pytest

from capcsim.errors import ScenarioError
from capcsim.learning.checkpoints import Checkpoints
from tests.learning.test_own_models import DIGITS, NUMBERS, REST, Build, build, logits, taught

SOURCE = """
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

def make(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[1] * input_shape[2], classes))

def estimator():
    return LogisticRegression()

class Net(nn.Module):
    def __init__(self, input_shape, classes):
        super().__init__()
        self.last = nn.Linear(64, classes)

    def forward(self, x):
        return self.last(torch.flatten(x, 1))

ready = nn.Linear(64, 10)
number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with models, which no other test imports."""
    name = f"own_{next(NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("factory", ["make", "estimator", "Net"])
def test_a_factory_by_name(build: Build, module: str, factory: str, workers: int) -> None:
    kinds = [f"{module}:{factory}", "logistic"]
    models = taught(build(models__kinds=kinds), 3, workers=workers)
    names = {"make": "Classifier", "estimator": "Fitted", "Net": "Adapted"}
    assert [type(model).__name__ for model in models] == [names[factory], "Classifier", names[factory]]
    for model in models:
        predicted = model.predict(DIGITS.x[REST])
        assert (predicted == DIGITS.y[REST]).mean() > 0.6
        assert (logits(model, DIGITS.x[REST]).argmax(axis=1) == predicted).mean() > 0.9


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (
            "no_such_module_anywhere:make",
            r"no_such_module_anywhere cannot be imported \(ModuleNotFoundError: .*PYTHONPATH",
        ),
        ("{module}:mak", r".* has no mak; did you mean make\?"),
        ("{module}:number", "something of type int cannot be called; name a function"),
        ("{module}:ready", "something of type Linear is no factory; name a function that gives an untrained"),
        ("{module}_broken:make", r".* cannot be imported \(SyntaxError: "),
        ("{module}_ends:make", r".* cannot be imported \(SystemExit: 3\)"),
    ],
)
def test_a_name_that_is_no_factory_is_one_line(build: Build, module: str, tmp_path: Path, kind: str, says: str) -> None:
    (tmp_path / f"{module}_broken.py").write_text("def make(:")
    (tmp_path / f"{module}_ends.py").write_text("raise SystemExit(3)")
    with pytest.raises(ScenarioError, match=rf"^models\.kinds = '\S+': {says}") as told:
        build(models__kinds=[kind.format(module=module)])
    assert "\n" not in str(told.value)


def test_a_network_with_a_name_is_kept_by_its_source(
    build: Build, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Checkpoints(tmp_path / "kept")
    trained: list[int] = []
    kinds = [f"{module}:Net", f"{module}:make", f"{module}:estimator"]
    ensemble = build(models__kinds=kinds)
    first = taught(ensemble, 3, checkpoints=kept, trained=trained.append)
    second = taught(build(models__kinds=kinds), 3, checkpoints=kept, trained=trained.append)
    assert trained == [3, 1], "what scikit-learn fits is fitted again"
    for one, other in zip(first, second, strict=True):
        assert type(one) is type(other)
        assert (one.probabilities(DIGITS.x[:50]) == other.probabilities(DIGITS.x[:50])).all()
    (tmp_path / f"{module}.py").write_text(SOURCE + "\n# another\n")
    taught(build(models__kinds=kinds), 3, checkpoints=kept, trained=trained.append)
    assert trained[2:] == [1], "the module that was imported is the one from before"
    carried = pickle.dumps(ensemble.own[kinds[0]])
    monkeypatch.setattr("capcsim.learning.own._imported", {})  # as in a new process
    taught(build(models__kinds=kinds), 3, checkpoints=kept, trained=trained.append)
    assert trained[3:] == [3]
    with pytest.raises(ScenarioError, match="its file changed since it was imported; start Python again"):
        pickle.loads(carried)


def test_what_a_factorys_module_imports_is_part_of_its_source(
    build: Build, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, kind = f"{module}_beside", f"{module}:Net"
    (tmp_path / f"{beside}.py").write_text(SOURCE)
    (tmp_path / f"{module}.py").write_text(f"def Net(a, b):\n    from {beside} import Net\n    return Net(a, b)\n")
    before = build(models__kinds=[kind]).own[kind].digest
    assert build(models__kinds=[kind]).own[kind].digest == before
    (tmp_path / f"{beside}.py").write_text(SOURCE + "\n# another\n")
    monkeypatch.setattr("capcsim.learning.own._imported", {})  # as in a new process
    assert build(models__kinds=[kind]).own[kind].digest != before
