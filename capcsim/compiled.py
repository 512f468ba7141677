"""`compiled`: numba's njit, with the machine code kept on disk where there is a place for it.

numba looks beside the source, then in its own folder of the user's cache; we add ours. Where none of them can be
written, code is compiled anew in each process, which is slow and no error.
"""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core import config as settings

from capcsim.caches import Cache, tell_unkept
from capcsim.errors import HostError

config: Any = settings
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[Function], Function]:
    """A decorator with numba's options for `njit`."""

    def wrap(function: Function) -> Function:
        dispatcher = numba.njit(**options)(function)
        if dispatcher is not function:  # as it is where NUMBA_DISABLE_JIT is set
            keep(dispatcher)
        return cast(Function, dispatcher)

    return wrap


class _Forgiving:
    """numba's cache of one function, for which a full disk, or a file damaged or unreadable, is no error."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, signature: Any, target: Any) -> Any:
        try:
            return self._cache.load_overload(signature, target)
        except Exception:  # damaged bytes may fail in any way
            with contextlib.suppress(OSError):
                self._cache.flush()
            return None

    def save_overload(self, signature: Any, code: Any) -> None:
        try:
            self._cache.save_overload(signature, code)
        except OSError as error:
            place = self._cache.cache_path
            tell_unkept(HostError(place, HostError.at(place, error).reason, "make room there"))


def is_kept(dispatcher: Any, signature: Any) -> bool:
    """Whether the machine code for a signature is on disk; then it is loaded."""
    if dispatcher._cache.load_overload(signature, dispatcher.targetctx) is None:
        return False
    dispatcher.compile(signature)
    return True


def keep(dispatcher: Any, stamp: object = None) -> None:
    """Let numba keep what it compiles, wherever it can.

    numba compiles anew when the function's own file has changed; with a `stamp`, when that has, which is for those that
    call functions of other files.
    """
    _enable(dispatcher)
    if stamp is not None and hasattr(dispatcher._cache, "_cache_file"):
        dispatcher._cache._cache_file._source_stamp = stamp


def _enable(dispatcher: Any) -> None:
    with contextlib.suppress(RuntimeError):  # no place that it knows can be written
        dispatcher.enable_caching()
        dispatcher._cache = _Forgiving(dispatcher._cache)
        return
    cache, given = Cache("compiled"), config.CACHE_DIR
    # An empty file, to learn whether it can be written; if not, this says so.
    if not cache.write(".try", b""):
        return
    config.CACHE_DIR = str(cache.folder)
    try:
        dispatcher.enable_caching()
        dispatcher._cache = _Forgiving(dispatcher._cache)
    finally:
        config.CACHE_DIR = given
