"""What a check says of a backend."""

from collections.abc import Callable


class Failure(Exception):
    """A backend does not keep the contract."""


def require(condition: bool, sentence: str) -> None:
    """Raise Failure with a sentence unless it holds."""
    if not condition:
        raise Failure(sentence)


def expect(kind: type[Exception], call: Callable[[], object]) -> None:
    """Raise Failure unless the call raises an error of this kind."""
    try:
        call()
    except kind:
        return
    raise Failure(f"{kind.__name__} was expected and did not come")
