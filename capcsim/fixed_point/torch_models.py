"""Torch modules, traced symbolically: any forward method that is made of layers which can be compiled."""

import copy
import operator
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from capcsim.errors import UnsupportedModel
from capcsim.fixed_point.graph import Op, lower
from capcsim.fixed_point.layers import Shape
from capcsim.fixed_point.network import Network
from capcsim.fixed_point.torch_layers import (
    SUPPORTED,
    TorchLayers,
    meaning_of_function,
    meaning_of_method,
    meaning_of_module,
)

ON_SIZES = frozenset({operator.getitem, operator.mul, operator.floordiv, operator.add, operator.sub})
"""Functions that a forward method may apply to sizes."""
HOOKED = "it has a forward hook, whose effect is unknown; remove it"


def compile_torch(model: Any) -> Network:
    """A torch module as integer layers, as it computes in eval mode; raises UnsupportedModel.

    The input shape comes from the model's attribute `input_shape`, or from a first Linear layer.
    """
    from torch import nn

    frozen = copy.deepcopy(model).eval()
    if type(frozen).__module__.startswith("torch.nn") and not isinstance(frozen, nn.Sequential):
        frozen = nn.Sequential(frozen)
    if _has_hooks(model):  # which tracing leaves out, as it calls the outermost forward method itself
        raise UnsupportedModel(type(model).__name__, HOOKED)
    graph = _trace(frozen, type(model).__name__)
    shape = tuple(int(size) for size in getattr(model, "input_shape", ())) or _first_linear(graph, frozen)
    if not shape:
        raise UnsupportedModel("model", "give it an attribute input_shape = (channels, height, width)")
    return lower(_read(graph, frozen, shape))


def _has_hooks(module: Any) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _trace(model: Any, name: str) -> Any:
    """The torch.fx graph of a module."""
    from torch import fx

    try:
        return fx.Tracer().trace(model)
    except Exception as error:  # a forward method may fail in any way on a symbolic input
        reason = str(error).partition("\n")[0]
        why = f"its forward method depends on values, or cannot be traced by torch.fx ({reason})"
        raise UnsupportedModel(name, why) from error


def _first_linear(graph: Any, model: Any) -> Shape:
    """The features that a first Linear layer takes, or () where another layer comes first."""
    from torch import nn

    for node in graph.nodes:
        if node.op == "call_module":
            module = model.get_submodule(node.target)
            if isinstance(module, nn.Linear):
                return (module.in_features,)
            if not isinstance(module, nn.Flatten | nn.Identity | nn.Dropout):
                break
    return ()


def _read(graph: Any, model: Any, input_shape: Shape) -> list[Op]:
    """Every op of a traced graph, the last one giving the logits."""
    from torch.fx.node import map_arg

    layers = TorchLayers()
    known: dict[Any, Any] = {}
    for node in graph.nodes:
        layers.name = _name_of(node, model)
        args, kwargs = (map_arg(given, known.__getitem__) for given in (node.args, node.kwargs))
        match node.op:
            case "placeholder":
                known[node] = layers.input(input_shape)
            case "output":
                return _leading_to(layers, args[0])
            case "get_attr":
                layers.refuse("weights can only be used by a layer of torch.nn")
            case _:
                known[node] = _call(layers, _meaning(layers, node, model, args), args, kwargs)
    raise UnsupportedModel(type(model).__name__, "its forward method returns nothing")


def _name_of(node: Any, model: Any) -> str:
    """What an error calls a layer."""
    match node.op:
        case "call_module":
            return f"{' '.join(str(model.get_submodule(node.target)).split())} (layer {node.target})"
        case "call_method":
            return f".{node.target}()"
        case _:
            return re.sub(r"_\d+$", "", node.name)


def _meaning(layers: TorchLayers, node: Any, model: Any, args: Any) -> Callable[..., Any]:
    """What to call with a node's arguments."""
    if node.op == "call_method":
        return partial(meaning_of_method(node.target), layers)
    if node.op == "call_module":
        module = model.get_submodule(node.target)
        if _has_hooks(module):
            layers.refuse(HOOKED)
        return partial(meaning_of_module(module), layers, module)
    if node.target in ON_SIZES and not any(isinstance(given, Op) for given in args):
        sizes: Callable[..., Any] = node.target
        return sizes
    return partial(meaning_of_function(node.target), layers)


def _call(layers: TorchLayers, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    for given in (*args, *kwargs.values()):
        layers.check_fresh(given)
    try:
        return function(*args, **kwargs)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return layers.refuse(f"its arguments cannot be understood; {SUPPORTED}")


def _leading_to(layers: TorchLayers, result: Any) -> list[Op]:
    """The ops so far, the result at the end."""
    if not isinstance(result, Op):
        layers.refuse("the model must return one tensor of logits")
    layers.check_fresh(result)
    return layers.ops[: layers.ops.index(result) + 1]
