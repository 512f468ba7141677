"""A State in compiled code: the address of its table, from which each array is read as it is used.

A tuple of thirty arrays would be two hundred words, handed on with each call.
"""

from typing import Any

from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import NativeValue, models, register_model, typeof_impl, unbox
from numba.np.arrayobj import populate_array

from capcsim.simulation.engine.state import FIELDS, State

_PLACES = {name: place for place, name in enumerate(FIELDS)}


class StateType(types.Type):
    """There is one."""

    def __init__(self) -> None:
        super().__init__("capcsim engine state")


STATE = StateType()


@register_model(StateType)
class _Address(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.IntType(64))


@typeof_impl.register(State)
def _typeof(value: State, context: Any) -> StateType:
    return STATE


@unbox(StateType)
def _unbox(kind: StateType, found: Any, context: Any) -> NativeValue:
    address = context.pyapi.object_getattr_string(found, "address")
    native = context.pyapi.long_as_longlong(address)
    context.pyapi.decref(address)
    return NativeValue(native, is_error=context.pyapi.c_api_error())


@infer_getattr
class _Attributes(AttributeTemplate):
    key = StateType

    def generic_resolve(self, kind: StateType, name: str) -> Any:  # type: ignore[override]
        if name not in FIELDS:
            return None
        record = from_dtype(FIELDS[name])
        return record if name == "clock" else types.Array(record, 1, "C")


@lower_getattr_generic(StateType)
def _read(context: Any, builder: Any, kind: StateType, state: Any, name: str) -> Any:
    word = ir.IntType(64)
    table = builder.inttoptr(state, word.as_pointer())
    at = 2 * _PLACES[name]
    data, length = (builder.load(builder.gep(table, [ir.Constant(word, at + k)])) for k in (0, 1))
    record = from_dtype(FIELDS[name])
    if name == "clock":
        return builder.inttoptr(data, context.get_value_type(record))
    kind_of_array = types.Array(record, 1, "C")
    array = context.make_array(kind_of_array)(context, builder)
    populate_array(
        array,
        data=builder.inttoptr(data, array.data.type),
        shape=cgutils.pack_array(builder, [length]),
        strides=cgutils.pack_array(builder, [ir.Constant(word, FIELDS[name].itemsize)]),
        itemsize=ir.Constant(word, FIELDS[name].itemsize),
        meminfo=None,
    )
    return array._getvalue()
