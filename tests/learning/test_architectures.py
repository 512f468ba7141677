from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from capcsim.errors import ScenarioError
from capcsim.learning.architectures import ResidualBlock
from capcsim.learning.models import build_model

IMAGES = {"lenet": (1, 28, 28)} | dict.fromkeys(("vgg-5", "vgg-7", "resnet-8", "resnet-10"), (3, 32, 32))


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("kind", "count"), [("lenet", 431_080), ("vgg-7", 4_507_722), ("resnet-10", 4_903_242)])
def test_an_architecture_has_the_papers_parameters(kind: Any, count: int) -> None:
    assert parameters(build_model(kind, IMAGES[kind], 10, (5,), seed=0)) == count


def test_vgg_5_has_four_convolutions_and_one_linear_layer() -> None:
    model = build_model("vgg-5", (3, 32, 32), 10, (5,), seed=0, width=0.1)
    layers = [type(layer) for layer in model if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert layers == [nn.Conv2d] * 4 + [nn.Linear]


def test_resnet_8_drops_a_block_and_widens_the_last_layer() -> None:
    short, long = (build_model(kind, (3, 32, 32), 10, (5,), seed=0) for kind in ("resnet-8", "resnet-10"))
    assert sum(isinstance(layer, ResidualBlock) for layer in short) == 3
    assert sum(isinstance(layer, ResidualBlock) for layer in long) == 4
    assert (short[-1].in_features, long[-1].in_features) == (1024, 512)


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 19, 17)])
def test_any_width_takes_any_image(kind: Any, shape: tuple[int, ...]) -> None:
    small, large = (build_model(kind, shape, 7, (5,), seed=0, width=width).eval() for width in (0.01, 0.1))
    assert parameters(small) < parameters(large)
    x = np.random.default_rng(0).random((3, *shape)).astype(np.float32)
    assert small.probabilities(x).sum(axis=1) == pytest.approx(np.ones(3))
    assert (large.predict(x) == large(torch.tensor(x)).argmax(dim=1).numpy()).all()


def test_many_samples_are_predicted_in_pieces() -> None:
    model = build_model("lenet", (1, 28, 28), 10, (5,), seed=0, width=0.05)
    x = np.random.default_rng(0).random((1203, 1, 28, 28)).astype(np.float32)
    assert model.predict(x).shape == (1203,)
    assert (model.probabilities(x).argmax(axis=1) == model.predict(x)).all()


def test_a_residual_block_projects_only_where_the_shape_changes() -> None:
    assert isinstance(ResidualBlock(4, 4, 1).shortcut, nn.Identity)
    assert ResidualBlock(4, 8, 2)(torch.zeros(1, 4, 7, 7)).shape == (1, 8, 4, 4)


@pytest.mark.parametrize(("kind", "shape"), [("lenet", (1, 8, 8)), ("vgg-7", (1, 7, 9)), ("resnet-8", (1, 3, 3))])
def test_images_can_be_too_small(kind: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ScenarioError, match=rf"the images have {shape[1]} x {shape[2]} pixels"):
        build_model(kind, shape, 10, (5,), seed=0)


@pytest.mark.parametrize("kind", IMAGES)
def test_images_are_needed(kind: Any) -> None:
    with pytest.raises(ScenarioError, match=r"samples have shape \(30,\)"):
        build_model(kind, (30,), 2, (5,), seed=0)
