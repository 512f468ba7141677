"""Party processes that these tests share: starting them takes seconds."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from capcsim.twoparty.helper import Helper
from capcsim_crypten import CryptenBackend
from tests.environment import without

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="package", autouse=True)
def installed() -> None:
    """CrypTen is an extra. Not by importing it, which only its parties' processes do."""
    if why := without("crypten"):
        pytest.skip(why)


@pytest.fixture(scope="package")
def backend() -> Iterator[CryptenBackend]:
    made = CryptenBackend(timeout_s=120.0)
    yield made
    made.close()


@pytest.fixture(scope="package")
def dealt() -> Iterator[CryptenBackend]:
    made = CryptenBackend(provider="third-party", timeout_s=120.0)
    yield made
    made.close()


@pytest.fixture(scope="package")
def elsewhere() -> Iterator[Callable[..., Any]]:
    """Call a function of a test module in a process of its own, which may import CrypTen."""
    helper = Helper("test's process")

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        helper.start((_with_log, (function, *arguments)), keep=False)
        reply = helper.reply()
        assert reply
        if reply.failure:
            raise reply.failure.error("test's process")
        return reply.output

    yield call
    helper.stop()


def _with_log(function: Callable[..., Any], *arguments: Any) -> tuple[Any, list[Any]]:
    return function(*arguments), []
