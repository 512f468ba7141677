"""capcsim runs and simulates CaPC, confidential and private collaborative learning (ICLR 2021).

    run = capcsim.run("digits", set={"privacy.sigma": 5})
    print(run)

Importing it is fast and loads no cryptography and no learning library: names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["CapcsimError", "Comparison", "Run", "Scenario", "__version__", "account", "compare", "load_scenario", "run"]

if TYPE_CHECKING:
    from capcsim.errors import CapcsimError
    from capcsim.facade import account, compare, run
    from capcsim.ran import Comparison, Run
    from capcsim.scenario import Scenario, load_scenario

_HOMES = {
    "CapcsimError": "errors",
    "Comparison": "ran",
    "Run": "ran",
    "Scenario": "scenario",
    "account": "facade",
    "compare": "facade",
    "load_scenario": "scenario",
    "run": "facade",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'capcsim' has no attribute {name!r}; it has {', '.join(sorted(__all__))}")
    found = globals()[name] = getattr(import_module(f"capcsim.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
