"""Untrained models of a user's own: torch modules with seeded weights, and scikit-learn classifiers."""

import copy
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from capcsim.errors import ScenarioError

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
MODEL = "an untrained torch module or scikit-learn classifier"


def make(kind: str, source: Any, input_shape: tuple[int, ...], classes: int, seed: int) -> Any:
    """A torch module for samples float32[B, *input_shape], or an unfitted scikit-learn classifier, shared with nobody.

    `source` is called for it, or is another one like it. Raises ScenarioError where that gives nothing of the kind.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with refusing(kind, "another one like it cannot be made"):
            found = _like(source) if is_model(source) else _called(kind, source, input_shape, classes)
        if isinstance(found, nn.Module):
            _check_network(kind, found, input_shape, classes)
            return found
    if not is_model(found):
        raise refusal(kind, f"it gives {told(found)}; let it give {MODEL}")
    if not _base().is_classifier(found) or not hasattr(found, "predict_proba"):
        raise refusal(kind, f"{told(found)} is no classifier with predict_proba; let it give {MODEL}")
    states = [name for name in found.get_params() if name == "random_state" or name.endswith("__random_state")]
    return found.set_params(**dict.fromkeys(states, seed % (1 << 32)))


def is_model(found: Any) -> bool:
    """Whether this is a torch module or an estimator of scikit-learn's, and not a class of them."""
    return isinstance(found, nn.Module) or (_base() is not None and isinstance(found, _base().BaseEstimator))


def refusal(kind: str, allowed: str) -> ScenarioError:
    """What is wrong with a kind."""
    return ScenarioError("models.kinds", kind, allowed)


@contextmanager
def refusing(kind: str, what: str, remedy: str = "") -> Iterator[None]:
    """A user's code may fail in any way: each is a ScenarioError that says in what."""
    try:
        yield
    except ScenarioError:
        raise
    except (Exception, SystemExit) as error:
        raise refusal(kind, f"{what} ({reason(error)}){'; ' * bool(remedy)}{remedy}") from error


def reason(error: BaseException) -> str:
    """An exception on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _base() -> Any:
    """scikit-learn's, or None: whoever holds an estimator has imported it."""
    return sys.modules.get("sklearn.base")


def told(found: Any) -> str:
    """What a value is."""
    return "nothing" if found is None else f"something of type {type(found).__name__}"


def _like(model: Any) -> Any:
    """Another one, torch modules with new weights."""
    if not isinstance(model, nn.Module):
        return _base().clone(model)
    module = copy.deepcopy(model).cpu()
    for layer in module.modules():
        if callable(getattr(layer, "reset_parameters", None)):
            layer.reset_parameters()  # type: ignore[operator]
    return module


def _called(kind: str, factory: Any, input_shape: tuple[int, ...], classes: int) -> Any:
    """What a factory gives: a copy, as it may give the same each time."""
    if not callable(factory):
        raise refusal(kind, f"{told(factory)} cannot be called; name a function that gives {MODEL}")
    arguments = (input_shape, classes) if _takes_two(kind, factory) else ()
    with refusing(kind, f"called as {_call(arguments)} it fails"):
        found = factory(*arguments)
    if isinstance(found, nn.Module):
        return copy.deepcopy(found).cpu()
    return _base().clone(found) if is_model(found) else found


def _call(arguments: tuple[Any, ...]) -> str:
    return f"factory({', '.join(map(str, arguments))})"


def _takes_two(kind: str, factory: Any) -> bool:
    """Whether a factory takes (input_shape, classes), and not nothing. What it can do without, it is not given."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # it is not written in Python
        return False
    needed = [each.name for each in parameters if each.default is each.empty and each.kind in POSITIONAL]
    named = any(each.default is each.empty and each.kind is each.KEYWORD_ONLY for each in parameters)
    by_name = [each.name for each in parameters if each.kind in POSITIONAL][:2] == ["input_shape", "classes"]
    if named or len(needed) not in ((0, 1, 2) if by_name else (0, 2)):
        raise refusal(kind, "a factory takes two arguments, (input_shape, classes), or none")
    return by_name or len(needed) == 2


def _check_network(kind: str, module: Any, input_shape: tuple[int, ...], classes: int) -> None:
    """Let a module know its `input_shape`, and see what it gives for two samples; raises ScenarioError."""
    if not hasattr(module, "input_shape"):
        module.input_shape = input_shape
    with refusing(kind, "its input_shape is no shape"):
        shape = tuple(module.input_shape)
    if shape != input_shape:
        raise refusal(kind, f"its input_shape is {shape}, but samples have shape {input_shape}")
    samples = f"samples float32{[2, *input_shape]}"
    with refusing(kind, f"it fails on {samples}"), torch.no_grad():
        logits = module.eval()(torch.zeros(2, *input_shape))
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, classes):
        given = list(logits.shape) if isinstance(logits, torch.Tensor) else told(logits)
        raise refusal(kind, f"it gives {given} for samples {[2, *input_shape]}; let it give logits {[2, classes]}")
    if not any(weight.requires_grad for weight in module.parameters()):
        raise refusal(kind, "it has no weights to train")


def check_trains(kind: str, module: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Train a copy of a module on two samples; raises ScenarioError."""
    with refusing(kind, f"it cannot be trained on samples float32{[2, *input_shape]}"):
        logits = copy.deepcopy(module).train()(torch.zeros(2, *input_shape))
        nn.functional.cross_entropy(logits, torch.zeros(2, dtype=torch.int64)).backward()  # type: ignore[no-untyped-call]
