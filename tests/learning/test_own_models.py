"""A user's own models as kinds of models, by the name of a factory and as objects from Python."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import AdaBoostClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.svm import LinearSVC
from torch import nn

from capcsim.errors import ScenarioError, UnsupportedModel
from capcsim.learning.baselines import compare
from capcsim.learning.checkpoints import Checkpoints
from capcsim.learning.datasets import load_dataset
from capcsim.learning.ensemble import Ensemble, nothing_bought
from capcsim.learning.models import Classifier, Fitted, Model
from capcsim.learning.own import Adapted
from capcsim.learning.training import train_all
from capcsim.scenario import Scenario, load_scenario
from capcsim.seeds import Seeds
from capcsim_plaintext import PlaintextBackend

Build = Callable[..., Scenario]
NUMBERS = itertools.count()
DIGITS = load_dataset(load_scenario("digits").data)
REST = slice(1200, None)


class Residual(nn.Module):
    """Two layers with a sum between, and a view that only contiguous samples allow."""

    def __init__(self, input_shape: tuple[int, ...] = (1, 8, 8), classes: int = 10, width: int = 24) -> None:
        super().__init__()
        self.first = nn.Conv2d(input_shape[0], 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.AvgPool2d(2)
        self.last = nn.Linear(4 * input_shape[1] * input_shape[2] // 4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = torch.relu(self.first(x))
        both = self.pool(torch.relu(first + self.second(first)))
        return self.last(both.view(both.size(0), -1))


def in_a_row(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), 20), nn.ReLU(), nn.Linear(20, classes))


def row() -> nn.Module:
    return in_a_row((1, 8, 8), 10)


OWN: dict[str, Any] = {
    "row": in_a_row,
    "row, no arguments": row,
    "row, itself": row(),
    "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 10)),
    "no bias": nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)),
    "residual": Residual,
    "residual, itself": Residual(),
    "logistic": LogisticRegression(C=5.0),
    "logistic, class": LogisticRegression,
    "perceptron": MLPClassifier((16,), learning_rate_init=0.02, max_iter=60),
    "boosting": lambda: AdaBoostClassifier(n_estimators=9),
}


@pytest.fixture
def build(scenario: Build) -> Build:
    """An ensemble of eight parties with these kinds, and kinds handed over from Python as "python:own"."""

    def make(own: Any = None, **changes: Any) -> Ensemble:
        wanted = {"models.epochs": 40, "models.kinds": ["python:own"], "data.train_per_party": 80}
        wanted |= {key.replace("__", "."): value for key, value in changes.items()}
        return Ensemble.of(scenario(wanted), DIGITS, {} if own is None else {"python:own": own})

    return make


def taught(ensemble: Ensemble, count: int = 1, **how: Any) -> list[Model]:
    how = {"workers": 1, **how}
    return train_all([ensemble.task(party) for party in range(count)], ensemble.scenario.models, **how)


def logits(model: Model, x: Any) -> Any:
    backend = PlaintextBackend()
    return backend.reference(backend.prepare(model.estimator, seed=0), x)


def some_slow(names: Iterable[str], *quick: str) -> list[Any]:
    """All of them, of which some run under -m slow only."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", OWN)
def test_own_models_train_predict_and_vote(build: Build, name: str) -> None:
    (model,) = taught(build(OWN[name]))
    x, y = DIGITS.x[REST], DIGITS.y[REST]
    predicted = model.predict(x)
    assert (predicted == y).mean() > (0.2 if name == "boosting" else 0.6)
    assert (logits(model, x).argmax(axis=1) == predicted).mean() > 0.9
    assert model.probabilities(x).sum(axis=1) == pytest.approx(np.ones(len(x)))
    assert len(model.features(x)) == len(x)


@pytest.mark.parametrize(
    ("name", "kind", "features"),
    [("row", Classifier, 20), ("residual", Adapted, 64), ("no bias", Adapted, 64), ("logistic", Fitted, 64)],
)
def test_what_own_models_become(build: Build, name: str, kind: type, features: int) -> None:
    ensemble = build(OWN[name])
    (model,) = taught(ensemble)
    assert type(model) is kind
    assert model.features(DIGITS.x[:3]).shape == (3, features)
    assert model.estimator.input_shape == (1, 8, 8)
    assert ensemble.task(0).is_network == (kind is not Fitted)


@pytest.mark.parametrize("name", some_slow(OWN, "row", "residual, itself", "logistic", "boosting"))
def test_a_seed_gives_the_same_models_in_any_process(build: Build, name: str) -> None:
    x = DIGITS.x[:200]
    alone, again, together = (
        [model.probabilities(x) for model in taught(build(OWN[name], models__epochs=3), 3, workers=workers)]
        for workers in (1, 1, 2)
    )
    assert (np.array(alone) == again).all()
    assert (np.array(alone) == together).all()
    assert (alone[0] != alone[1]).any()


@pytest.mark.parametrize("name", ["row", "row, itself", "residual", "residual, itself"])
def test_every_task_begins_with_weights_of_its_own_seed(build: Build, name: str) -> None:
    before = torch.random.get_rng_state()
    tasks = [build(OWN[name]).task(party) for party in (0, 1, 0)]
    first, second, again = (task.own.network((1, 8, 8), 10, task.seed, []).last.weight for task in tasks)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_was_handed_over_stays_as_it_was(build: Build) -> None:
    network, estimator = Residual(), LogisticRegression()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    for own in (network, lambda: network, estimator):
        taught(build(own, models__epochs=2))
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert not hasattr(network, "input_shape")
    assert not hasattr(estimator, "classes_")


@pytest.mark.parametrize("name", ["row", "residual", "logistic", "perceptron", "boosting"])
def test_a_class_never_seen_never_wins(build: Build, name: str) -> None:
    ensemble = build(OWN[name])
    task, seen = ensemble.task(0), [0, 2, 3, 5, 8]
    rows = np.isin(task.y, seen)
    (model,) = train_all(
        [task.__class__(task.kind, task.x[rows], task.y[rows], 10, 1, task.own)], ensemble.scenario.models, workers=1
    )
    for x in (DIGITS.x[REST], np.random.default_rng(0).uniform(-16, 16, (50, 1, 8, 8)).astype(np.float32)):
        assert set(model.predict(x)) <= set(seen)
        assert set(logits(model, x).argmax(axis=1)) <= set(seen)


class Summed(nn.Module):
    """No layer of it gives the logits alone."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -100 * self.other(x.flatten(1)) + self.one(x.flatten(1))


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (OWN["no bias"], r"a party has no sample of class 1, 4, 6, 7, 9, .* nn\.Linear with a bias and 10 outputs"),
        (Summed, r"a class that a party has no sample of wins; let its last nn\.Linear give the logits$"),
    ],
)
def test_a_network_that_cannot_rank_classes_last_says_so(build: Build, own: Any, says: str) -> None:
    ensemble = build(own)
    task = ensemble.task(0)
    rows = np.isin(task.y, [0, 2, 3, 5, 8])
    few = task.__class__(task.kind, task.x[rows], task.y[rows], 10, 1, task.own)
    with pytest.raises(ScenarioError, match=rf"^models\.kinds = 'python:own': {says}"):
        train_all([few], ensemble.scenario.models, workers=1)


def test_an_estimator_that_cannot_be_fitted_says_so(build: Build) -> None:
    ensemble = build(LogisticRegression())
    task = ensemble.task(0)
    rows = task.y == 3
    alike = task.__class__(task.kind, task.x[rows], task.y[rows], 10, 1, task.own)
    with pytest.raises(
        ScenarioError, match=r"cannot be fitted on .* of 1 classes \(ValueError: .*\); give each"
    ) as told:
        train_all([alike], ensemble.scenario.models, workers=1)
    assert "\n" not in str(told.value)


class Refusing(LogisticRegression):
    def fit(self, x: Any, y: Any) -> Any:
        raise RuntimeError("not today")


def test_whatever_a_fit_raises_is_one_line(build: Build) -> None:
    says = r"^models\.kinds = 'python:own': it cannot be fitted on the .* \(RuntimeError: not today\); give each party"
    with pytest.raises(ScenarioError, match=says):
        taught(build(Refusing()))


def test_unsupported_layers_are_the_backends_to_refuse(build: Build) -> None:
    (model,) = taught(build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softplus()), models__epochs=1))
    with pytest.raises(UnsupportedModel, match="Softplus"):
        PlaintextBackend().prepare(model.estimator, seed=0)


class Broken(nn.Module):
    """A network that fails in a way of its own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.last = how, nn.Linear(64, 10)
        if how == "frozen":
            self.last.requires_grad_(False)
            self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.how == "raises":
            raise ArithmeticError("only in training")
        logits = self.last(x.flatten(1))
        if self.how == "whole":
            return logits.long()
        return logits[:1] if self.training and self.how == "short" else logits

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self.how == "alone":
            raise TypeError("it cannot be copied")
        found = Broken(self.how)
        found.load_state_dict(self.state_dict())
        return found

    def __repr__(self) -> str:
        if self.how == "wordless":
            raise ValueError("no words")
        return "Broken()"


def ends() -> None:
    raise SystemExit(3)


REFUSED: list[tuple[str, Any, str]] = [
    ("a number", 3, "something of type int cannot be called; name a function"),
    ("three arguments", lambda a, b, c: None, r"a factory takes two arguments, \(input_shape, classes\), or none$"),
    ("a failure", lambda: {}["x"], r"called as factory\(\) it fails \(KeyError: 'x'\)$"),
    ("a failing class", lambda s, c: nn.Linear("x", c), r"called as factory\(\(1, 8, 8\), 10\) it fails \(TypeError: "),
    ("nothing", lambda: None, "it gives nothing; let it give an untrained torch module or scikit-learn classifier$"),
    ("a list", lambda: [1], "it gives something of type list; let it give"),
    ("a class", lambda: LogisticRegression, "it gives something of type .*; let it give"),
    ("regression", LinearRegression(), "something of type LinearRegression is no classifier with predict_proba"),
    ("no probabilities", LinearSVC(), "something of type LinearSVC is no classifier with predict_proba"),
    ("other samples", nn.Linear(5, 10), r"it fails on samples float32\[2, 1, 8, 8\] \(RuntimeError: "),
    ("other type", nn.Sequential(nn.Flatten(), nn.Linear(64, 10).double()), "it fails on samples float32"),
    (
        "one logit",
        nn.Sequential(nn.Flatten(), nn.Linear(64, 1)),
        r"it gives \[2, 1\] for .* let it give logits \[2, 10\]",
    ),
    (
        "no logits",
        nn.MaxPool2d(8, return_indices=True),
        r"it gives something of type tuple for samples ",
    ),
    ("fails in training", Broken("raises"), r"it cannot be trained on .* \(ArithmeticError: only in training\)$"),
    ("loses a sample in training", Broken("short"), r"it cannot be trained on samples float32\[2, 1, 8, 8\] \(Val"),
    ("whole numbers", Broken("whole"), r"it cannot be trained on "),
    ("frozen", Broken("frozen"), r"it cannot be trained on .* does not require grad"),
    ("cannot be copied", Broken("alone"), r"another one like it cannot be made \(TypeError: it cannot be copied\)$"),
    ("cannot be told", Broken("wordless"), r"it cannot be told in words \(ValueError: no words\)$"),
    ("ends the process", ends, r"called as factory\(\) it fails \(SystemExit: 3\)$"),
    ("no weights", nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(10)), "it has no weights to train$"),
]


@pytest.mark.parametrize(("own", "says"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_an_object_that_is_no_model_is_one_line(build: Build, own: Any, says: str) -> None:
    with pytest.raises(ScenarioError, match=rf"^models\.kinds = 'python:own': {says}") as told:
        build(own)
    assert "\n" not in str(told.value)


def test_another_shape_of_samples_is_refused(build: Build) -> None:
    network = row()
    network.input_shape = (64,)
    with pytest.raises(ScenarioError, match=r"its input_shape is \(64,\), but samples have shape \(1, 8, 8\)$"):
        build(network)


def test_objects_come_from_python_only(build: Build) -> None:
    with pytest.raises(ScenarioError, match=r"^models\.kinds = 'python:own': objects come from Python only, use capc"):
        build()


def test_objects_are_not_kept_and_nothing_that_depends_on_them_is_used_again(build: Build, tmp_path: Path) -> None:
    kept, network = Checkpoints(tmp_path), row()
    trained: list[int] = []
    one, other = build(network), build(network)
    for ensemble in (one, one, other):
        taught(ensemble, 2, checkpoints=kept, trained=trained.append)
    assert trained == [2, 2, 2]
    assert list(tmp_path.glob("*")) == []
    keys = [ensemble.keys(ensemble.tasks()) for ensemble in (one, one, other)]
    assert keys[0] == keys[1]
    assert not set(keys[0]) & set(keys[2])


def test_retraining_is_of_the_same_kind(build: Build) -> None:
    ensemble = build(LogisticRegression())
    task = ensemble.retraining(1, nothing_bought(), 0)
    assert task.own is ensemble.task(1).own
    rows = ensemble.parts.pools[1][:4]
    assert len(ensemble.retraining(1, (rows, DIGITS.y[rows]), 1).y) == len(task.y) + 4


@pytest.mark.parametrize("name", ["row", "residual", "logistic"])
def test_own_models_are_compared_with_pooling_and_averaging(build: Build, name: str) -> None:
    ensemble = build(OWN[name], models__baselines=["pooling", "fedavg"], models__fedavg_rounds=3)
    found = compare(ensemble, ensemble.scenario.models, Seeds(1))
    assert all(quality.accuracy > 0.8 for quality in found["pooling"].qualities)
    if name == "logistic":
        assert "one kind of network" in found["fedavg"].note
    else:
        assert all(quality.accuracy > 0.5 for quality in found["fedavg"].qualities)


def test_a_whole_collaboration_of_several_kinds(build: Build) -> None:
    kinds = ["python:own", "mlp", "sklearn.linear_model:LogisticRegression"]
    ensemble = build(Residual(), models__kinds=kinds)

    def train(tasks: Sequence[Any], title: str) -> list[Model]:
        return train_all(tasks, ensemble.scenario.models, workers=2)

    models = ensemble.train(train)
    after, changed = ensemble.adopt(models, [nothing_bought()] * 2, train)
    assert changed == (0, 1)
    assert len(set(models.keys)) == 8
    assert [type(model).__name__ for model in after.voters[:4]] == ["Adapted", "Classifier", "Fitted", "Adapted"]
