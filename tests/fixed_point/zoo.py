"""Models for the tests: each with seeded weights, in eval mode."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from capcsim.learning.models import Classifier, build_model

IMAGE = (3, 12, 12)


def architecture(kind: Any, shape: tuple[int, ...], width: float, seed: int = 0) -> Classifier:
    return settle(build_model(kind, shape, 10, (16,), seed=seed, width=width), seed)


def settle(model: Any, seed: int) -> Any:
    """Eval mode, and batch norms as if they had been trained."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5, generator=generator)
                module.bias.data.normal_(0, 0.3, generator=generator)
    return model.eval()


def chain(*layers: nn.Module, shape: tuple[int, ...] = IMAGE, seed: int = 0) -> Any:
    return settle(Classifier(shape, *layers), seed)


def conv(channels: int = 3, maps: int = 4, kernel: int = 3, **given: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, maps, kernel, **given)


def head(inputs: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(inputs, 3)]


ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "logistic": lambda: architecture("logistic", (1, 8, 8), 1),
    "mlp": lambda: architecture("mlp", (1, 8, 8), 1),
    "cryptonet-relu": lambda: architecture("cryptonet-relu", (3, 7, 9), 0.5),
    "lenet": lambda: architecture("lenet", (1, 28, 28), 0.2),
    "vgg-5": lambda: architecture("vgg-5", (3, 32, 32), 0.05),
    "vgg-7": lambda: architecture("vgg-7", (3, 32, 32), 0.05),
    "resnet-8": lambda: architecture("resnet-8", (3, 32, 32), 0.05),
    "resnet-10": lambda: architecture("resnet-10", (3, 32, 32), 0.05),
    "resnet-8 on MNIST": lambda: architecture("resnet-8", (1, 28, 28), 0.05),
}

CHAINS: dict[str, Callable[[], Any]] = {
    "average 2x2 after": lambda: chain(conv(), nn.ReLU(), nn.AvgPool2d(2), *head(100)),
    "average 2x2 before": lambda: chain(conv(), nn.AvgPool2d(2), nn.ReLU(), *head(100)),
    "average 3x3 after": lambda: chain(conv(), nn.ReLU(), nn.AvgPool2d(3, 2), *head(64)),
    "average 3x3 before": lambda: chain(conv(), nn.AvgPool2d(3, 2), nn.ReLU(), *head(64)),
    "average 3x3 padded": lambda: chain(conv(), nn.AvgPool2d(3, 2, 1), nn.ReLU(), *head(100)),
    "average 3x3 of the input": lambda: chain(nn.AvgPool2d(3), *head(48)),
    "averages 3x3 and 2x2": lambda: chain(conv(), nn.ReLU(), nn.AvgPool2d(3, 1), nn.AvgPool2d(2), *head(64)),
    "average 3x3, no ReLU": lambda: chain(conv(), nn.AvgPool2d(3, 2), *head(64)),
    "average 3x3 last": lambda: chain(conv(), nn.ReLU(), conv(4, 5), nn.AvgPool2d(8), nn.Flatten()),
    "average 3x3 and max pool": lambda: chain(conv(), nn.AvgPool2d(3, 1), nn.MaxPool2d(2), *head(64)),
    "max pool and average 3x3": lambda: chain(conv(), nn.MaxPool2d(2), nn.AvgPool2d(3, 1), nn.ReLU(), *head(36)),
    "average 1x1": lambda: chain(conv(), nn.ReLU(), nn.AvgPool2d(1), *head(400)),
    "max pool after": lambda: chain(conv(), nn.ReLU(), nn.MaxPool2d(2), *head(100)),
    "max pool before": lambda: chain(conv(), nn.MaxPool2d(2), nn.ReLU(), *head(100)),
    "max pool padded": lambda: chain(conv(), nn.MaxPool2d(3, 2, 1), nn.ReLU(), *head(100)),
    "max pool without a ReLU": lambda: chain(conv(), nn.MaxPool2d(2), *head(100)),
    "max pool of the input": lambda: chain(nn.MaxPool2d((2, 3)), *head(72)),
    "two max pools": lambda: chain(conv(), nn.ReLU(), nn.MaxPool2d(2), nn.MaxPool2d(2, 1), *head(64)),
    "global average": lambda: chain(conv(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), *head(4)),
    "adaptive average": lambda: chain(conv(), nn.ReLU(), nn.AdaptiveAvgPool2d((2, 5)), *head(40)),
    "two layers without a ReLU": lambda: chain(nn.Flatten(), nn.Linear(432, 8), nn.Linear(8, 3)),
    "a ReLU first": lambda: chain(nn.ReLU(), *head(432)),
    "a ReLU last": lambda: chain(*head(432), nn.ReLU()),
    "two ReLUs": lambda: chain(conv(), nn.ReLU(), nn.ReLU(), *head(400)),
    "batch norms": lambda: chain(
        conv(bias=False), nn.BatchNorm2d(4), nn.ReLU(), *head(400), nn.BatchNorm1d(3, affine=False)
    ),
    "dropout": lambda: chain(nn.Dropout2d(), conv(), nn.Dropout(), nn.ReLU(), nn.Identity(), *head(400)),
    "oblong": lambda: chain(conv(3, 4, (3, 2), stride=(1, 2), padding=(0, 1)), nn.ReLU(), *head(280)),
    "same maps": lambda: chain(conv(padding="valid"), nn.ReLU(), *head(400)),
    "a single logit": lambda: chain(nn.Flatten(), nn.Linear(432, 1)),
}
