"""A user's own models as kinds of models, by the name of a factory or as objects handed over from Python."""

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from capcsim.errors import closest
from capcsim.learning.factories import MODEL, check_trains, is_model, make, reason, refusal, refusing, told
from capcsim.learning.models import Classifier, Fitted, Model, Network
from capcsim.paths import imported_by, source_digest
from capcsim.scenario import FROM_PYTHON

TRIED = 8
"""Samples of each class on which an estimator is fitted to be tried."""
_imported: dict[str, tuple[Any, str]] = {}
"""By name a factory and the digest of its source when it was found: a file edited since then is not what runs here."""


@dataclass(frozen=True)
class Own:
    """One kind of model. `source` makes untrained ones; `origin` tells it from others, and `text` is one in words.

    `weights` is a digest of those that seed 0 gives. `is_kept` says whether `origin` means the same in another process.
    """

    kind: str
    source: Any
    origin: str
    text: str
    weights: str
    is_network: bool
    is_kept: bool

    @property
    def digest(self) -> str:
        """What a trained model depends on, besides its task."""
        return sha256(f"{self.origin} {self.weights} {self.text}".encode()).hexdigest()

    @property
    def lasting_digest(self) -> str:
        """All of it that another process finds too."""
        return (self if self.is_kept else replace(self, origin="")).digest

    def network(
        self, input_shape: tuple[int, ...], classes: int, seed: int, absent: NDArray[np.int64]
    ) -> "Classifier | Adapted":
        """An untrained network; raises ScenarioError where it could not rank the `absent` classes last."""
        module = make(self.kind, self.source, input_shape, classes, seed)
        last = _last_linear(module, classes)
        if len(absent) and last is None:
            labels = ", ".join(map(str, absent))
            allowed = f"a party has no sample of class {labels}, which it can rank last only by a last"
            raise refusal(self.kind, f"{allowed} nn.Linear with a bias and {classes} outputs; let it have one")
        # A row of layers of which the last gives the logits is as ours.
        in_a_row = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
        return Classifier(input_shape, *module) if in_a_row and module[-1] is last else Adapted(module, last)

    def fitted(self, x: NDArray[np.float32], y: NDArray[np.int64], classes: int, seed: int) -> Fitted:
        """A scikit-learn classifier fitted on x float32[n, *shape] and y int64[n]; raises ScenarioError."""
        from sklearn.exceptions import ConvergenceWarning

        estimator = make(self.kind, self.source, x.shape[1:], classes, seed)
        what = f"it cannot be fitted on the {len(y)} samples of a party, of {len(np.unique(y))} classes"
        with refusing(self.kind, what, "give each party more of them, or mend its parameters"):
            with warnings.catch_warnings():
                # How many iterations are enough is the user's to say, as epochs are.
                warnings.simplefilter("ignore", ConvergenceWarning)
                estimator.fit(x.reshape(len(x), -1), y)
            fitted = Fitted(estimator, x.shape[1:], classes)
            fitted.predict(x[:1])
        return fitted

    def tried(self, input_shape: tuple[int, ...], classes: int) -> Model:
        """A model of this kind that has learnt nothing of use, to see early whether it can be evaluated at all."""
        if self.is_network:
            return self.network(input_shape, classes, 0, np.zeros(0, np.int64))
        generator = np.random.default_rng(0)
        y = np.arange(TRIED * classes, dtype=np.int64) % classes
        return self.fitted(generator.uniform(-1, 1, (len(y), *input_shape)).astype(np.float32), y, classes, 0)

    def check_ranks(self, model: Network, x: NDArray[np.float32], absent: NDArray[np.int64]) -> None:
        """Raise ScenarioError where `absent` classes win although the last layer ranks them last."""
        if np.isin(model.predict(x), absent).any():
            allowed = "a class that a party has no sample of wins; let its last nn.Linear give the logits"
            raise refusal(self.kind, allowed)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process imports a factory from where this one did: its path may be older."""
        fields = (self.origin, self.text, self.weights, self.is_network, self.is_kept)
        if self.kind.startswith(FROM_PYTHON):
            return Own, (self.kind, self.source, *fields)
        return _imported_there, (self.kind, tuple(sys.path), *fields)


class Adapted(Network):
    """A module of any form behind the methods of a network; `last` gives its logits, where that is known."""

    def __init__(self, module: Any, last: nn.Linear | None) -> None:
        super().__init__()
        self.module, self.input_shape = module, module.input_shape
        self._names = [name for name, layer in module.named_modules() if layer is last]

    def forward(self, x: Any) -> Any:
        """float32[B, C] for float32[B, *input_shape]."""
        return self.module(x)

    @property
    def estimator(self) -> nn.Module:
        """The user's module."""
        module: nn.Module = self.module
        return module

    @property
    def last(self) -> nn.Linear | None:
        """The last linear layer with an output for each class."""
        return self.module.get_submodule(self._names[0]) if self._names else None


def own_kinds(
    kinds: Sequence[str], objects: Mapping[str, Any], input_shape: tuple[int, ...], classes: int
) -> dict[str, Own]:
    """The user's own among the kinds, the `objects` by their names; raises ScenarioError where one is no model."""
    # Objects have no source that tells one from another: nothing that depends on them is ever used by another run.
    here = os.urandom(16).hex()
    found = {}
    for kind in dict.fromkeys(kinds):
        if kind.startswith(FROM_PYTHON):
            if kind not in objects:
                raise refusal(kind, "objects come from Python only, use capcsim.run(..., models=[...])")
            source, origin = objects[kind], ""
        elif ":" in kind:
            source, origin = _named(kind)
        else:
            continue
        model = make(kind, source, input_shape, classes, 0)
        is_network = isinstance(model, nn.Module)
        weights = ""
        if is_network:
            check_trains(kind, model, input_shape)
            weights = _weights(model)
        with refusing(kind, "it cannot be told in words"):
            text = repr(model)
        found[kind] = Own(kind, source, origin or here, text, weights, is_network, bool(origin))
    return found


def _named(kind: str) -> tuple[Any, str]:
    """The factory "package.module:factory" and a digest of its module's source, "" where that cannot be read."""
    name, _, attribute = kind.partition(":")
    try:
        module = import_module(name)
    except (Exception, SystemExit) as error:  # a user's code may fail in any way
        allowed = f"{name} cannot be imported ({reason(error)}); PYTHONPATH names the folders that modules are in"
        raise refusal(kind, allowed) from error
    factory = getattr(module, attribute, None)
    if factory is None:
        raise refusal(kind, f"{name} has no {attribute}{closest(attribute, vars(module))}")
    if is_model(factory):
        raise refusal(kind, f"{told(factory)} is no factory; name a function that gives {MODEL}")
    if kind not in _imported or _imported[kind][0] is not factory:
        _imported[kind] = factory, _source(name)
    return _imported[kind]


def _source(module: str) -> str:
    try:
        # With its package, and all else of the user's that it imports.
        return source_digest((module.partition(".")[0], module, *imported_by(module)))
    except (OSError, ValueError):
        return ""


def _weights(module: nn.Module) -> str:
    digest = sha256()
    for name, weight in module.state_dict().items():
        digest.update(name.encode() + weight.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()[:32]


def _imported_there(kind: str, path: Sequence[str], origin: str, *fields: Any) -> Own:
    """The same kind in another process; raises ScenarioError where the file is another by now."""
    sys.path.extend(entry for entry in path if entry not in sys.path)
    factory, found = _named(kind)
    if found and found != origin:
        raise refusal(kind, "its file changed since it was imported; start Python again")
    return Own(kind, factory, origin, *fields)


def _last_linear(module: nn.Module, classes: int) -> nn.Linear | None:
    """The last linear layer, where it has a bias and an output for each class."""
    layers = [each for each in module.modules() if isinstance(each, nn.Linear) and each.out_features == classes]
    return layers[-1] if layers and layers[-1].bias is not None else None
