"""The networks of the paper (section 4.1, appendix F.2) and the simple ones, as lists of torch layers.

`width` scales the channels of an image model, for tests and small data sets; each keeps at least one.
"""

from math import prod

import torch
from torch import nn

from capcsim.errors import ScenarioError

Shape = tuple[int, ...]

VGG_STAGES = ((64,), (128,), (256, 256), (512, 512))
"""Channels of VGG-7's convolutions; a max pool stands between two stages."""
RESNET_CHANNELS = (64, 128, 256, 512)
"""Channels of ResNet-10's blocks; each but the first halves the feature maps."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is projected where the shape changes."""

    def __init__(self, channels: int, maps: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_normed(channels, maps, 3, stride), nn.ReLU(), *_normed(maps, maps, 3, 1))
        same = channels == maps and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_normed(channels, maps, 1, stride))
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, channels, H, W] to [B, maps, H / stride, W / stride], rounded up."""
        activations: torch.Tensor = self.relu(self.body(x) + self.shortcut(x))
        return activations


def mlp(input_shape: Shape, classes: int, hidden: tuple[int, ...]) -> list[nn.Module]:
    """Linear layers with ReLUs between them."""
    widths = (prod(input_shape), *hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in zip(widths, hidden, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return [*layers, nn.Linear(widths[-1], classes)]


def cryptonet_relu(input_shape: Shape, classes: int, width: float) -> list[nn.Module]:
    """CryptoNets with ReLU (Gilad-Bachrach et al. 2016), the model of the paper's Table 1."""
    channels, height, image_width = _image("cryptonet-relu", input_shape, 1)
    maps, units = _scaled(5, width), _scaled(100, width)
    values = maps * ((height + 1) // 2) * ((image_width + 1) // 2)
    return [
        nn.Conv2d(channels, maps, kernel_size=5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(values, units),
        nn.ReLU(),
        nn.Linear(units, classes),
    ]


def lenet(input_shape: Shape, classes: int, width: float) -> list[nn.Module]:
    """The paper's LeNet: 431,080 parameters for ten classes of 1 x 28 x 28 images."""
    channels, height, image_width = _image("lenet", input_shape, 16)
    first, second, units = (_scaled(n, width) for n in (20, 50, 500))
    rows, columns = (((size - 4) // 2 - 4) // 2 for size in (height, image_width))
    return [
        nn.Conv2d(channels, first, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * rows * columns, units),
        nn.ReLU(),
        nn.Linear(units, classes),
    ]


def vgg(kind: str, input_shape: Shape, classes: int, width: float, stages: int) -> list[nn.Module]:
    """VGG's first stages, an average over each feature map, one linear layer.

    VGG-7 (4 stages, 6 convolutions) has 4,507,722 parameters for ten classes of 3 x 32 x 32 images. The paper
    does not list VGG-5 (3 stages, 4 convolutions): it is taken to end in the same way.
    """
    channels, _, _ = _image(kind, input_shape, 8)
    layers: list[nn.Module] = []
    for stage in VGG_STAGES[:stages]:
        if layers:
            layers.append(nn.MaxPool2d(2))
        for maps in (_scaled(n, width) for n in stage):
            layers += [*_normed(channels, maps, 3, 1), nn.ReLU()]
            channels = maps
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def resnet(kind: str, input_shape: Shape, classes: int, width: float, blocks: int) -> list[nn.Module]:
    """A convolution, residual blocks, averages over 4 x 4 windows, one linear layer.

    ResNet-10 (4 blocks) has 4,903,242 parameters for ten classes of 3 x 32 x 32 images. ResNet-8 leaves out the
    last block; its feature maps are then 8 x 8, so that four averages of each reach a last layer of 1,024 inputs.
    Images of other sizes get one average over each map where 4 does not divide its sides.
    """
    channels, *sides = _image(kind, input_shape, 4)
    maps = _scaled(RESNET_CHANNELS[0], width)
    layers = [*_normed(channels, maps, 3, 1), nn.ReLU()]
    for index, wanted in enumerate(RESNET_CHANNELS[:blocks]):
        channels, maps = maps, _scaled(wanted, width)
        layers.append(ResidualBlock(channels, maps, stride=2 if index else 1))
        sides = [(side + 1) // 2 for side in sides] if index else sides
    even = all(side % 4 == 0 for side in sides)
    values = maps * prod(side // 4 for side in sides) if even else maps
    pool = nn.AvgPool2d(4) if even else nn.AdaptiveAvgPool2d(1)
    return [*layers, pool, nn.Flatten(), nn.Linear(values, classes)]


def _normed(channels: int, maps: int, kernel: int, stride: int) -> list[nn.Module]:
    """A convolution that keeps the size (divided by the stride), then a batch norm in place of a bias."""
    convolution = nn.Conv2d(channels, maps, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(maps)]


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _image(kind: str, input_shape: Shape, smallest: int) -> tuple[int, int, int]:
    """Channels, height and width of the samples; raises ScenarioError where they are not images, or too small."""
    if len(input_shape) != 3:
        allowed = f"logistic or mlp: this model convolves images, and the samples have shape {input_shape}"
        raise ScenarioError("models.kinds", kind, allowed)
    channels, height, width = input_shape
    if min(height, width) < smallest:
        allowed = f"another model: the images have {height} x {width} pixels, and this one needs {smallest}"
        raise ScenarioError("models.kinds", kind, allowed)
    return channels, height, width
