"""Checks of what a backend declares, publishes and refuses."""

from functools import partial

import numpy as np

from capcsim.backend import (
    SECURITY,
    Backend,
)
from capcsim.conformance.judging import expect, require
from capcsim.conformance.samples import convolution, mlp
from capcsim.errors import InputError, UnsupportedModel


def capabilities_are_declared(backend: Backend) -> None:
    """Security from the known list; names of what it needs are top-level imports."""
    found = backend.capabilities
    require(found.security in SECURITY, f"security is {found.security!r}; allowed: {', '.join(SECURITY)}")
    require(all("." not in need for need in found.needs), f"needs must be top-level names: {found.needs}")
    require(bool(found.layers), "it declares no layer that it can evaluate")
    require(bool(found.argmax and found.release), "it does not say how steps 1c and 3 are computed")


def prepare_publishes_no_weight(backend: Backend) -> None:
    """Two models of one architecture have the same public part."""
    first, second = (backend.prepare(mlp(seed), seed=0).public for seed in (1, 2))
    require(first == second, "the public part depends on the weights")
    require(first.input_shape == (6,) and first.classes == 4, f"public part is wrong: {first}")


def public_layers_are_values(backend: Backend) -> None:
    """Each one says what it does, what it takes and what it gives: a cost is estimated from that."""
    for model in (mlp(1), convolution(2)):
        public = backend.prepare(model, seed=0).public
        for position, layer in enumerate(public.layers):
            where = f"layer {position} of the public part, {layer!r},"
            require(not isinstance(layer, str), f"{where} is a text; give a value, as capcsim.fixed_point.layers has")
            hash(layer)
            require(bool(layer.kind and str(layer)), f"{where} has no kind or no text")
            require(all(0 <= source <= position for source in layer.sources), f"{where} takes a later layer's output")
            require(all(size >= 1 for size in layer.shape), f"{where} has shape {layer.shape}")
        last = public.layers[-1].shape if public.layers else None
        require(last == (public.classes,), f"the last layer gives {last}, where there are {public.classes} classes")


def prepare_refuses_what_it_cannot_do(backend: Backend) -> None:
    """A model with an unknown layer raises UnsupportedModel."""
    from torch import nn

    expect(UnsupportedModel, lambda: backend.prepare(nn.Sequential(nn.Bilinear(3, 3, 2)), seed=0))


def bad_inputs_are_refused(backend: Backend) -> None:
    """A wrong shape, a NaN and an empty batch raise InputError, before anything is sent."""
    prepared = backend.prepare(mlp(7), seed=0)
    session, _ = backend.open(0, prepared)
    for bad in (np.zeros((2, 5), np.float32), np.full((2, 6), np.nan, np.float32), np.zeros((0, 6), np.float32)):
        expect(InputError, partial(backend.infer, session, bad))
        expect(InputError, partial(backend.reference, prepared, bad))


def close_can_be_repeated(backend: Backend) -> None:
    """Closing twice is no error."""
    backend.close()
    backend.close()
