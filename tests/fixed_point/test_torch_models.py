import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from capcsim.errors import UnsupportedModel
from capcsim.fixed_point import RELU_LIMIT, Network, compile_model
from capcsim.fixed_point.layers import Linear
from capcsim.learning.models import Classifier
from tests.fixed_point.reference import network_logits
from tests.fixed_point.zoo import ARCHITECTURES, CHAINS, IMAGE, chain, conv, head, settle


def texts(network: Network) -> tuple[str, ...]:
    return tuple(map(str, network.public.layers))


@pytest.mark.parametrize("name", ARCHITECTURES | CHAINS)
def test_a_network_is_exact_in_integers(name: str) -> None:
    model = (ARCHITECTURES | CHAINS)[name]()
    x = np.random.default_rng(0).normal(0, 2, (5, *model.input_shape)).astype(np.float32)
    network = compile_model(model)
    logits, bits = network_logits(model, x)
    assert network.public.fraction_bits == bits
    assert network.evaluate(network.encode(x)).tolist() == logits


@pytest.mark.parametrize("name", ARCHITECTURES | CHAINS)
def test_a_network_is_close_to_its_float_model(name: str) -> None:
    model = (ARCHITECTURES | CHAINS)[name]()
    x = np.random.default_rng(1).random((8, *model.input_shape)).astype(np.float32)
    network = compile_model(model)
    logits = network.evaluate(network.encode(x)) / (1 << network.public.fraction_bits)
    expected = model(torch.tensor(x)).detach().numpy()
    expected = expected if expected.shape[1] > 1 else np.concatenate([0 * expected, expected], axis=1)
    assert np.abs(logits - expected).max() < 0.01


def test_relu_floors_and_saturates() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        model[0].weight.fill_(2.0)
        model[0].bias.fill_(0.0)
        model[2].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model[2].bias.fill_(0.0)
    network = compile_model(model)
    x = np.array([[-1.0], [1.0], [15.0]], np.float32)
    top = (RELU_LIMIT - 1) << 12
    assert network.evaluate(network.encode(x)).tolist() == [[0, 0], [2 << 24, -2 << 24], [top, -top]]


def test_layers_are_fused_as_the_circuits_are() -> None:
    model = chain(conv(), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.MaxPool2d(2), nn.AvgPool2d(2), *head(16))
    assert texts(compile_model(model)) == (
        "conv2d(3->4, 3x3, stride (1, 1), padding (0, 0))",
        "max_pool(2x2, stride (2, 2), padding (0, 0)) + relu",
        "sum_pool(2x2, stride (2, 2), padding (0, 0))",
        "flatten",
        "linear(16->3)",
    )


def test_pooled_sums_after_a_relu_need_no_truncation_and_accumulators_do() -> None:
    after = compile_model(chain(conv(), nn.ReLU(), nn.AvgPool2d(2), *head(100)))
    before = compile_model(chain(conv(), nn.AvgPool2d(2), *head(100)))
    assert after.public.fraction_bits == 26
    assert "truncate(14 bits)" in texts(before)
    assert before.public.fraction_bits == 24


class Functional(nn.Module):
    """What a hand-written forward method may look like."""

    input_shape = IMAGE

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv(4, 4, padding=1)
        self.norm, self.act = nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.drop, self.last = nn.Dropout(), nn.Linear(4, 3)
        self.unused = conv(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        out = self.norm(self.second(x))
        self.unused(out)
        out += x
        out = torch.relu(F.dropout(self.act(out), training=self.training))
        out = out.relu().relu_().mean((2, 3))
        return self.last(self.drop(out.view(out.size(0), -1)))


def settled(model: nn.Module) -> nn.Module:
    return settle(model, 0)


def test_a_forward_method_is_traced() -> None:
    torch.manual_seed(0)
    model = settled(Functional())
    x = np.random.default_rng(0).random((6, *IMAGE)).astype(np.float32)
    network = compile_model(model)
    logits = network.evaluate(network.encode(x)) / (1 << network.public.fraction_bits)
    assert np.abs(logits - model(torch.tensor(x)).detach().numpy()).max() < 0.01
    assert [layer.kind for layer in network.public.layers].count("conv2d") == 2


FORWARDS: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "flatten": lambda m, x: m.last(torch.flatten(m.first(x), 1)),
    "flatten method": lambda m, x: m.last(m.first(x).flatten(start_dim=1)),
    "flatten pieces": lambda m, x: m.last(m.first(x).flatten(1, 2).flatten(-2)),
    "reshape": lambda m, x: m.last(m.first(x).reshape(x.shape[0], -1)),
    "torch.reshape": lambda m, x: m.last(torch.reshape(m.first(x), (x.shape[0], 400))),
    "view of sizes": lambda m, x: m.last(m.first(x).view(-1, m.first(x).size(1) * 10 * x.size()[2] * 10 // 12)),
    "view and back": lambda m, x: m.last(m.first(x).view(x.size(0), 40, -1).view(x.size(0), -1)),
    "module keywords": lambda m, x: m.last(torch.flatten(m.first(x), start_dim=1)),
}


class Given(nn.Module):
    """A forward method from outside."""

    input_shape = IMAGE

    def __init__(self, function: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.function = conv(), nn.Linear(400, 3), [function]

    def forward(self, x: torch.Tensor) -> Any:
        return self.function[0](self, x)


@pytest.mark.parametrize("name", FORWARDS)
def test_ways_to_flatten_are_all_the_same(name: str) -> None:
    model = Given(FORWARDS[name]).eval()
    x = np.random.default_rng(0).random((3, *IMAGE)).astype(np.float32)
    network, plain = compile_model(model), compile_model(Classifier(IMAGE, model.first, nn.Flatten(), model.last))
    assert network.evaluate(network.encode(x)).tolist() == plain.evaluate(plain.encode(x)).tolist()


POOLS: dict[str, tuple[Callable[[Any, torch.Tensor], Any], nn.Module]] = {
    "max": (lambda m, x: F.max_pool2d(x, (2, 2)), nn.MaxPool2d(2)),
    "torch max": (lambda m, x: torch.max_pool2d(x, 2, stride=1), nn.MaxPool2d(2, 1)),
    "average": (lambda m, x: F.avg_pool2d(x, 3, 2, 1), nn.AvgPool2d(3, 2, 1)),
    "adaptive": (lambda m, x: F.adaptive_avg_pool2d(x, (2, 5)), nn.AdaptiveAvgPool2d((2, 5))),
    "mean": (lambda m, x: torch.mean(x, dim=(-1, -2), keepdim=True), nn.AdaptiveAvgPool2d(1)),
}


@pytest.mark.parametrize("name", POOLS)
def test_functional_pools_are_the_modules(name: str) -> None:
    function, module = POOLS[name]
    model = Given(lambda m, x: torch.flatten(function(m, F.relu(m.first(x))), 1)).eval()
    x = np.random.default_rng(0).random((3, *IMAGE)).astype(np.float32)
    features = module(torch.zeros(1, 4, 10, 10)).numel()
    torch.manual_seed(1)
    tail = nn.Linear(features, 3)
    network = compile_model(chain(model, tail))
    plain = compile_model(chain(model.first, nn.ReLU(), module, nn.Flatten(), tail))
    assert network.evaluate(network.encode(x)).tolist() == plain.evaluate(plain.encode(x)).tolist()


def test_the_callers_model_is_left_alone() -> None:
    model = Functional().train()
    before = copy.deepcopy(model.state_dict())
    compile_model(model)
    assert model.training
    assert model.norm.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_bare_layer_is_a_model() -> None:
    assert compile_model(nn.Linear(5, 3)).public.layers == (Linear((0,), (3,), 5),)


def test_the_input_shape_of_a_first_linear_layer() -> None:
    assert compile_model(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(5, 3))).public.input_shape == (5,)


def test_an_average_with_two_users_is_folded_backwards() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        mean = F.adaptive_avg_pool2d(m.first(x), (2, 5))
        return m.last(torch.flatten(F.relu(mean), 1)) + m.last(torch.flatten(mean, 1))

    model = Given(forward).eval()
    model.last = nn.Linear(40, 3)
    x = np.random.default_rng(0).random((3, *IMAGE)).astype(np.float32)
    network = compile_model(model)
    logits = network.evaluate(network.encode(x)) / (1 << network.public.fraction_bits)
    assert np.abs(logits - model(torch.tensor(x)).detach().numpy()).max() < 0.01


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_forward_hook(lambda *_: None)
    return model


def hooked_outside() -> nn.Module:
    """Tracing calls the outermost forward method itself, and would not see it."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    model.register_forward_hook(lambda module, given, out: -out)
    return model


def filled(value: float) -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.fill_(value)
    return model


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + y


class NormOfShared(nn.Module):
    input_shape = IMAGE

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return torch.flatten(y + self.norm(y), 1)


class OwnWeight(nn.Module):
    input_shape = (2,)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def refused_forward(function: Callable[[Any, torch.Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Given(function)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "unknown module": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Tanh()), r"Tanh\(\) \(layer 1\): only Linear"),
    "unknown function": (refused_forward(lambda m, x: torch.tanh(m.first(x))), "tanh: only Linear"),
    "unknown method": (refused_forward(lambda m, x: m.first(x).abs()), r"\.abs\(\): only Linear"),
    "not a model": (lambda: "model", "str: only torch modules and scikit-learn"),
    "no shape": (lambda: nn.Sequential(conv()), "give it an attribute input_shape"),
    "maps at the end": (lambda: chain(conv()), "one row of logits"),
    "nothing to learn": (lambda: chain(nn.ReLU(), shape=(4,)), "no layer with weights"),
    "grouped": (lambda: chain(conv(3, 3, groups=3), nn.Flatten()), "only groups=1"),
    "dilated": (lambda: chain(conv(dilation=2), nn.Flatten()), "only groups=1, dilation=1"),
    "reflected": (lambda: chain(conv(padding=1, padding_mode="reflect"), nn.Flatten()), "zero padding"),
    "same": (lambda: chain(conv(padding="same"), nn.Flatten()), "'same' may pad one side more"),
    "channels": (lambda: chain(conv(2), nn.Flatten()), r"its input of shape \(3, 12, 12\); it takes 2 feature maps"),
    "features": (lambda: chain(nn.Flatten(), nn.Linear(24, 2)), r"of shape \(432,\); it takes one row of 24"),
    "linear on maps": (lambda: chain(nn.Linear(12, 2)), r"of shape \(3, 12, 12\); it takes one row"),
    "large kernel": (lambda: chain(conv(kernel=13), nn.Flatten()), "a window larger than its input"),
    "norm first": (lambda: chain(nn.BatchNorm2d(3), conv()), r"BatchNorm2d.*must directly follow"),
    "norm after ReLU": (lambda: chain(conv(), nn.ReLU(), nn.BatchNorm2d(4)), "must directly follow"),
    "shared by a norm": (NormOfShared, "BatchNorm2d.*must directly follow a Linear or Conv2d of its own"),
    "norm of the batch": (
        lambda: Classifier(IMAGE, conv(), nn.BatchNorm2d(4, track_running_stats=False)),
        "no running statistics",
    ),
    "norm channels": (lambda: chain(conv(), nn.BatchNorm2d(5)), r"does not fit its input of shape \(4, 10, 10\)"),
    "dilated pool": (lambda: chain(nn.MaxPool2d(2, dilation=2), *head(9)), "only dilation=1"),
    "ceiling max": (lambda: chain(nn.MaxPool2d(2, ceil_mode=True), *head(9)), "ceil_mode=False"),
    "indices": (lambda: chain(nn.MaxPool2d(2, return_indices=True), *head(9)), "return_indices=False"),
    "ceiling average": (lambda: chain(nn.AvgPool2d(2, ceil_mode=True), *head(9)), "windows of several sizes"),
    "uncounted": (lambda: chain(nn.AvgPool2d(2, padding=1, count_include_pad=False)), "count_include_pad=False"),
    "override": (lambda: chain(nn.AvgPool2d(2, divisor_override=3)), "divisor_override=None"),
    "adaptive": (lambda: chain(nn.AdaptiveAvgPool2d(5)), r"\(5, 5\) does not divide its input of shape \(3, 12"),
    "mean": (refused_forward(lambda m, x: m.first(x).mean((1, 2))), "mean over height and width"),
    "max pool padded": (lambda: chain(conv(), nn.MaxPool2d(3, 2, 1), *head(100)), "needs a ReLU of its own"),
    "max pool padded too much": (
        lambda: chain(conv(), F_pool(), nn.ReLU(), *head(676)),
        r"node 2: a padding out of range",
    ),
    "average of inputs and ReLU": (
        lambda: chain(nn.AvgPool2d(3), nn.ReLU(), *head(48)),
        r"AvgPool2d.*no layer with weights can take its divisor 9",
    ),
    "average at the end": (
        lambda: chain(conv(), nn.ReLU(), nn.AvgPool2d(10), nn.Flatten()),
        "no layer with weights can take its divisor 100",
    ),
    "average and sum": (
        refused_forward(lambda m, x: torch.flatten(F.avg_pool2d(x, 3) + F.avg_pool2d(F.relu(x), 3), 1)),
        "no layer with weights can take its divisor 9",
    ),
    "flatten the batch": (refused_forward(lambda m, x: torch.flatten(x)), "joins the queries"),
    "mix the batch": (refused_forward(lambda m, x: x.view(-1, 3)), "mixes the queries"),
    "two unknown sizes": (refused_forward(lambda m, x: x.view(x.size(0), -1, -1)), "mixes the queries"),
    "add a number": (refused_forward(lambda m, x: x + 1.0), "only two values of the network"),
    "scaled sum": (refused_forward(lambda m, x: torch.add(x, x, alpha=2)), "only two values of the network"),
    "broadcast": (refused_forward(lambda m, x: x + torch.flatten(x, 1)), r"have shapes \(3, 12, 12\) and \(432,\)"),
    "dropout that stays": (refused_forward(lambda m, x: F.dropout(x)), "pass training=self.training"),
    "softmax": (lambda: chain(*head(432), nn.LogSoftmax(1)), "let the model return its logits"),
    "functional softmax": (refused_forward(lambda m, x: F.softmax(m.first(x), 1)), "return its logits"),
    "two outputs": (refused_forward(lambda m, x: (x, x)), "one tensor of logits"),
    "two inputs": (TwoInputs, "take one input"),
    "own weight": (OwnWeight, "weights can only be used by a layer of torch.nn"),
    "control flow": (Branching, "Branching: its forward method depends on values"),
    "in place, used again": (
        refused_forward(lambda m, x: [y := m.first(x), F.relu(y, inplace=True), y + y][2]),
        "changed in place",
    ),
    "sum in place, used again": (
        refused_forward(lambda m, x: [y := m.first(x), z := y.flatten(1), y.add_(y), z][3]),
        "changed in place",
    ),
    "view in place": (
        refused_forward(lambda m, x: [y := m.first(x), torch.relu_(y.flatten(1)), y][2]),
        "changed in place",
    ),
    "arguments": (refused_forward(lambda m, x: F.relu(x).flatten(1, 2, 3)), "arguments cannot be understood"),
    "pool of a row": (lambda: chain(nn.Flatten(), nn.AdaptiveAvgPool2d(1)), "arguments cannot be understood"),
    "hook": (hooked, "has a forward hook"),
    "hook on all of it": (hooked_outside, "model: Sequential: it has a forward hook"),
    "single logit of a ReLU": (
        lambda: chain(nn.Linear(2, 1), nn.ReLU(), shape=(2,)),
        "a single logit must end with a Linear",
    ),
    "NaN": (lambda: filled(float("nan")), "a weight is NaN or infinite"),
    "past the ring": (lambda: filled(2e5), r"linear\(2->2\): its output could reach .*scale the weights down"),
    "past float64": (lambda: filled(1e12), r"linear\(2->2\): .*could reach .*scale the weights down"),
}


def F_pool() -> nn.Module:  # noqa: N802
    """Torch refuses this padding only when it runs."""
    return nn.MaxPool2d(2, 1, 2)


@pytest.mark.parametrize("name", REFUSED)
def test_an_unsupported_model_names_layer_and_reason(name: str) -> None:
    make, says = REFUSED[name]
    with pytest.raises(UnsupportedModel, match=says):
        compile_model(make())
