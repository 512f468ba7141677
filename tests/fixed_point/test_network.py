import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from capcsim.errors import InputError
from capcsim.fixed_point import FRACTION_BITS, Network, PublicNetwork, compile_model
from capcsim.fixed_point.layers import output_shape
from capcsim.fixed_point.network import CHUNK_VALUES, encode
from tests.fixed_point.zoo import ARCHITECTURES, CHAINS, architecture, chain


def normal(network: Network, count: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(0).normal(0, scale, (count, *network.public.input_shape)).astype(np.float32)


def test_inputs_are_rounded_and_saturated() -> None:
    network = compile_model(nn.Linear(6, 2))
    x = np.array([[0.0, 1.0, 1.6 / 4096, -1.4 / 4096, 99.0, -1e30]], np.float32)
    encoded = network.encode(x)
    assert encoded.dtype == np.int32
    assert encoded.tolist() == [[0, 4096, 2, -1, 65536, -65536]]
    assert (encode(x, network.public) == encoded).all()


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.zeros((2, 3), np.float32), r"shape \(2, 3\); the model takes \(B, 2\)"),
        (np.zeros((0, 2), np.float32), r"shape \(0, 2\)"),
        (np.array([[1, np.nan]], np.float32), "NaN or an infinity"),
        (np.array([[1, np.inf]], np.float32), "NaN or an infinity"),
    ],
)
def test_bad_inputs(x: np.ndarray, says: str) -> None:
    network = compile_model(nn.Linear(2, 2))
    for call in (network.encode, network.saturation):
        with pytest.raises(InputError, match=says):
            call(x)


def test_logits_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    network = compile_model(architecture("resnet-8", (3, 12, 12), 0.1))
    encoded = network.encode(normal(network, 20, 3))
    together = network.evaluate(encoded)
    assert together.dtype == np.int64
    assert (together == np.concatenate([network.evaluate(row[None]) for row in encoded])).all()
    monkeypatch.setattr("capcsim.fixed_point.network.CHUNK_VALUES", 30_000)
    assert (together == network.evaluate(encoded)).all()


def test_many_images_need_little_memory() -> None:
    network = compile_model(architecture("lenet", (1, 28, 28), 0.2))
    encoded = network.encode(normal(network, 2_000))
    tracemalloc.start()
    network.evaluate(encoded)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 8 * CHUNK_VALUES


def test_saturation_counts_inputs_and_relu_units() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        model[0].weight.fill_(2.0)
        model[0].bias.fill_(0.0)
    network = compile_model(model)
    assert network.saturation(np.array([[1.0], [-17.0], [7.9], [8.0], [17.0]], np.float32)) == 4 / 10
    assert network.saturation(np.array([[1.0], [-16.0], [-9.0]], np.float32)) == 0


def test_saturation_sees_the_value_that_a_max_pool_lets_through() -> None:
    identity = nn.Conv2d(1, 1, 1, bias=False)
    with torch.no_grad():
        identity.weight.fill_(1.5)
    network = compile_model(chain(identity, nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(1, 2), shape=(1, 2, 2)))
    assert network.saturation(np.array([[[[1, 2], [3, 12]]]], np.float32)) == 1 / 5
    assert network.saturation(np.array([[[[1, 2], [3, -12]]]], np.float32)) == 0


@pytest.mark.parametrize("name", ARCHITECTURES | CHAINS)
def test_a_public_network_survives_its_bytes(name: str) -> None:
    public = compile_model((ARCHITECTURES | CHAINS)[name]()).public
    again = PublicNetwork.from_bytes(public.to_bytes())
    assert again == public
    assert hash(again) == hash(public)


def test_a_public_network_holds_no_weight() -> None:
    first, second = (compile_model(architecture("lenet", (1, 28, 28), 0.1, seed)).public for seed in (1, 2))
    assert first.to_bytes() == second.to_bytes()


PUBLIC = compile_model(architecture("resnet-8", (1, 12, 12), 0.05)).public
TREE: dict[str, Any] = json.loads(PUBLIC.to_bytes())
KINDS = [layer["kind"] for layer in TREE["layers"]]


INPUT = {"shape": [1, 12, 12], "sources": [], "kind": "input"}


def layer(first: str, /, **changes: Any) -> Callable[[Any], None]:
    return lambda tree: tree["layers"][KINDS.index(first)].update(changes)


def pooled_relu(pool: dict[str, Any]) -> Callable[[Any], None]:
    return layer("relu", pool=pool)


def with_layers(*layers: dict[str, Any], shape: list[int]) -> Callable[[Any], None]:
    return lambda tree: tree.update(layers=layers, input_shape=shape)


LINEAR = {"sources": [0], "shape": [2], "inputs": 4, "kind": "linear"}
LARGE: dict[str, Any] = {
    "sources": [0],
    "shape": [1, 1025, 1025],
    "kernel": [1024, 1024],
    "stride": [1, 1],
    "padding": [0, 0],
}
LARGE |= {"inputs": 1, "kind": "conv2d"}
PATHS = {"sources": [0], "shape": [8], "trees": 1, "depth": 3, "kind": "tree_paths"}

HOSTILE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no layers": (lambda t: t.update(layers=[]), "1 nodes, where 2 to 4096"),
    "too many layers": (lambda t: t.update(layers=t["layers"] + [t["layers"][-1]] * 5000), "nodes, where 2 to 4096"),
    "two inputs": (lambda t: t["layers"].insert(0, INPUT), "node 1: the input, and only the input, comes first"),
    "unknown kind": (layer("relu", kind="sigmoid"), r"damaged at layers\.\d+"),
    "no kind": (lambda t: t["layers"][0].pop("kind"), "damaged at layers"),
    "no shape": (lambda t: t["layers"][0].pop("shape"), "damaged at layers"),
    "later source": (layer("relu", sources=[99]), "not an earlier node"),
    "own source": (layer("relu", sources=[1 + KINDS.index("relu")]), "not an earlier node"),
    "negative source": (layer("relu", sources=[-1]), "not an earlier node"),
    "two sources": (layer("relu", sources=[0, 1]), "damaged at layers"),
    "one summand": (layer("add", sources=[1]), "damaged at layers"),
    "unequal summands": (layer("add", sources=[0, 1]), "adds shape"),
    "empty shape": (layer("linear", shape=[]), "an empty shape"),
    "zero shape": (layer("relu", shape=[0, 12, 12]), "an empty shape"),
    "wrong shape": (layer("relu", shape=[4, 12, 12]), r"has shape \(3, 12, 12\), not \(4, 12, 12\)"),
    "wrong reshape": (layer("reshape", shape=[9]), "makes 9 values"),
    "wrong inputs": (layer("linear", inputs=9), "takes one row of 9 values"),
    "linear maps": (layer("linear", shape=[10, 1]), "a linear layer gives one row"),
    "wrong channels": (layer("conv2d", inputs=2), "takes 2 feature maps"),
    "convolution to a row": (layer("conv2d", shape=[3]), "a convolution gives feature maps"),
    "zero stride": (layer("conv2d", stride=[0, 1]), "a kernel or stride out of range"),
    "negative kernel": (layer("conv2d", kernel=[-1, 3]), "a kernel or stride out of range"),
    "huge padding": (layer("conv2d", padding=[1 << 20, 1]), "a padding out of range"),
    "negative padding": (layer("sum_pool", padding=[-1, 0]), "a padding out of range"),
    "window too large": (layer("sum_pool", kernel=[40, 40]), "a window larger than its input"),
    "pool padding": (
        pooled_relu({"kernel": [2, 2], "stride": [1, 1], "padding": [2, 2]}),
        "a padding out of range; a pool's is at most half",
    ),
    "padded truncation": (
        layer("relu", kind="truncate", pool={"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1]}),
        "pads a max pool without a ReLU",
    ),
    "drops everything": (layer("relu", drop_bits=36), r"drops 36 bits mod 2\^37"),
    "drops less than nothing": (layer("relu", drop_bits=-1), "drops -1 bits"),
    "shifts out": (layer("shift", bits=37), r"shifts by 37 bits mod 2\^37"),
    "shifts down": (layer("shift", bits=-1), "shifts by -1 bits"),
    "huge value": (
        with_layers({"sources": [0], "shape": [1 << 25], "kind": "reshape"}, shape=[1 << 25]),
        "node 0: has more than 16777216 values",
    ),
    "huge layer": (
        with_layers({**LINEAR, "shape": [1 << 20], "inputs": 1 << 20}, shape=[1 << 20]),
        "node 1: has more than 67108864 weights",
    ),
    "huge windows": (with_layers(LARGE, shape=[1, 2048, 2048]), "or values in windows"),
    "deep trees": (with_layers({**PATHS, "depth": 13}, shape=[7]), "has depth 13"),
    "unbounded depth": (with_layers({**PATHS, "depth": 1 << 40}, shape=[7]), "has depth"),
    "no trees": (with_layers({**PATHS, "trees": 0}, shape=[7]), "has 0 trees"),
    "paths of a wrong row": (with_layers(PATHS, shape=[8]), "takes one row of 7 values"),
    "maps at the end": (lambda t: t["layers"].pop(), "one row of logits|fewer than two classes|and \\d+ logits"),
    "one class": (with_layers({**LINEAR, "shape": [1]}, shape=[4]), "fewer than two classes"),
    "unknown ring": (lambda t: t.update(ring_bits=38), "ring_bits = 38; allowed: 24, 37, 41, 46"),
    "logits' scale": (lambda t: t.update(fraction_bits=37), "logits with 37 fraction bits"),
    "negative scale": (lambda t: t.update(fraction_bits=-1), "logits with -1 fraction bits"),
    "classes": (lambda t: t.update(classes=11), "11 classes, and 10 logits"),
    "input shape": (lambda t: t.update(input_shape=[1, 12, 11]), r"node 1: has shape \(3, 12, 11\), not"),
    "no input shape": (lambda t: t.update(input_shape=[]), "node 0: an empty shape"),
    "a text for a layer": (lambda t: t["layers"].__setitem__(0, "<script>"), r"damaged at layers\.0"),
    "input's scale": (lambda t: t["encoding"].update(fraction_bits=64), "inputs with 64 fraction bits"),
    "rounding": (lambda t: t["encoding"].update(rounding="up"), r"damaged at encoding\.rounding"),
    "limits": (lambda t: t["encoding"].update(low=[1, 2]), "2 and 1 limits for 144 features"),
    "no limits": (lambda t: t["encoding"].update(low=[], high=[]), "0 and 0 limits"),
    "empty range": (lambda t: t["encoding"].update(low=[5], high=[4]), "range is empty or too wide"),
    "wide range": (lambda t: t["encoding"].update(high=[1 << 36]), "range is empty or too wide"),
    "text for a number": (lambda t: t.update(ring_bits="37"), "not in its canonical form"),
    "unknown key": (lambda t: t.update(weights=[1, 2]), "not in its canonical form"),
    "a fraction": (lambda t: t.update(ring_bits=37.5), "damaged at ring_bits"),
    "infinite": (lambda t: t.update(classes=float("inf")), "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_structure_is_refused(name: str) -> None:
    change, says = HOSTILE[name]
    tree = json.loads(json.dumps(TREE))
    change(tree)
    with pytest.raises(InputError, match=says):
        PublicNetwork.from_bytes(json.dumps(tree, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "damaged at its start"),
        (b"[1, 2]", "damaged at its start"),
        (b"\xff\xfe{}", "damaged at its start"),
        (b"[" * 100_000, "damaged at its start"),
        (b" " * ((1 << 24) + 1), "at most 16777216 are read"),
        (PUBLIC.to_bytes() + b" ", "canonical form"),
    ],
)
def test_hostile_bytes_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        PublicNetwork.from_bytes(data)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_changed_bytes_are_refused_or_are_another_sound_network(data: Any) -> None:
    raw = bytearray(PUBLIC.to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.sampled_from(b'0123456789,]}"-e.'))
    try:
        network = PublicNetwork.from_bytes(bytes(raw))
    except InputError:
        return
    assert network.to_bytes() == bytes(raw)


def test_the_public_parts_fraction_bits_are_the_logits() -> None:
    assert compile_model(nn.Linear(2, 2)).public.fraction_bits == 2 * FRACTION_BITS


def test_a_public_part_tells_the_shapes_that_each_layer_takes() -> None:
    public = compile_model(architecture("resnet-8", (1, 12, 12), 0.05)).public
    for layer in public.layers:
        assert output_shape(layer, public.takes(layer)) == layer.shape
    assert public.takes(public.layers[0]) == ((1, 12, 12),)
    assert any(len(public.takes(layer)) == 2 for layer in public.layers)
