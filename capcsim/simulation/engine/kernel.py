"""How the kernel's functions, plain Python over a State, become machine code: one pointer is passed on.

`kernel` marks a function. `compiled(function)` is its machine code, with all that it calls, which is kept on disk as
long as no source of this package changes. A State is one address in it.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, TypeAlias, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])
Run: TypeAlias = Callable[[Any, float], int]
"""Of a State and a time."""
_MARKED: list[FunctionType] = []
# Nothing is allocated, so nothing needs to be counted; a division by zero is never tried.
_OPTIONS: dict[str, Any] = {"_nrt": False, "error_model": "numpy"}
_NO_WRAPPERS: dict[str, Any] = dict.fromkeys(("no_cpython_wrapper", "no_cfunc_wrapper"), True)


def kernel(function: Function) -> Function:
    """A function that compiled code may call; it stays as it is."""
    assert isinstance(function, FunctionType)
    _MARKED.append(function)
    return function


@cache
def compiled(function: Run) -> Run:
    """The machine code of a marked function, which is compiled when it is first called."""
    import numba

    from capcsim.compiled import keep
    from capcsim.simulation.engine import pointers

    assert pointers.STATE
    spaces: dict[str, dict[str, Any]] = {}
    made: dict[Any, Any] = {}
    for marked in _MARKED:
        space = spaces.setdefault(marked.__module__, dict(marked.__globals__))
        copy = FunctionType(marked.__code__, space, marked.__name__)
        copy.__module__, copy.__qualname__ = marked.__module__, marked.__qualname__
        # Python calls one of them only.
        options = _OPTIONS if marked is function else _OPTIONS | _NO_WRAPPERS
        made[marked] = numba.njit(**options)(copy)
    for space in spaces.values():
        space.update({name: made[value] for name, value in space.items() if _is_marked(value, made)})
    dispatcher = made[function]
    if isinstance(dispatcher, FunctionType):  # as it is where NUMBA_DISABLE_JIT is set
        return function
    keep(dispatcher, _digest())
    return cast(Run, dispatcher)


def is_loaded(function: Run) -> bool:
    """Whether this process has the machine code already."""
    return compiled.cache_info().currsize > 0 and bool(getattr(compiled(function), "signatures", ()))


def kept(function: Run) -> Run | None:
    """As `compiled`, where the machine code is on disk already; else None."""
    from numba import types

    from capcsim.compiled import is_kept
    from capcsim.simulation.engine.pointers import STATE

    found = compiled(function)
    return found if found is function or is_kept(found, (STATE, types.float64)) else None


def _is_marked(value: Any, made: dict[Any, Any]) -> bool:
    return isinstance(value, FunctionType) and value in made


def _digest() -> str:
    """Of this package's sources: machine code of other ones must not be taken for theirs."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()
