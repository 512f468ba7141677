"""The Python door: each function is what the command of its name does, with arrays and models in place of files."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from numbers import Real
from os import PathLike
from pathlib import Path
from threading import RLock
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import HostError, InputError, ScenarioError
from capcsim.files import new_folder, withdrawing
from capcsim.learning.parallel import Engine
from capcsim.ran import Comparison, Run
from capcsim.scenario import GivenData, Network, Scenario, load_scenario, tree_of
from capcsim.study.comparison import SCENARIO_NETWORK
from capcsim.study.means import Means, Progress, Silent
from capcsim.study.trained import Given

P = ParamSpec("P")
T = TypeVar("T")
Named: TypeAlias = str | Path | Mapping[str, Any] | Scenario
"""A scenario that ships, by name; a TOML file; nested dictionaries; a Scenario."""
ARRAYS = "arrays"
MOST = 1 << 31
"""No count of votes reaches it."""
ONE_AT_A_TIME = RLock()
"""torch's generator, its number of threads and its tracing are the whole process's: a second run waits."""


OPTION = re.compile(r"(?<![\w-])(?:--[a-z][a-z-]*|-o\b)")
"""How errors name an argument where they speak of a command."""


def _as_python_says(function: Callable[P, T]) -> Callable[P, T]:
    """Let errors name arguments as Python does: group_size, not --group-size, which is the command's."""

    @wraps(function)
    def called(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return function(*arguments, **named)
        except ScenarioError as error:
            error.key, error.allowed = OPTION.sub(_as_argument, error.key), OPTION.sub(_as_argument, error.allowed)
            raise
        except InputError as error:
            error.args = tuple(OPTION.sub(_as_argument, str(each)) for each in error.args)
            raise
        except (OSError, MemoryError) as error:
            raise HostError.of(error) or error from None

    return called


def _as_argument(option: re.Match[str]) -> str:
    return "output" if option[0] == "-o" else option[0].lstrip("-").replace("-", "_")


@_as_python_says
def run(
    scenario: Named,
    *,
    backend: str | None = None,
    set: Mapping[str, Any] | None = None,  # noqa: A002 (as the command's option)
    seed: int | None = None,
    data: Any = None,
    models: Sequence[Any] = (),
    data_folder: str | Path | None = None,
    output: str | Path | None = None,
    measure: bool = False,
    workers: int = 1,
    engine: Engine = "loky",
    adopt: bool = False,
    progress: bool = False,
) -> Run:
    """Run a scenario: train, collaborate, simulate, retrain; or finish the run that was interrupted in `output`.

    `set` changes keys, {"privacy.sigma": 5}, where None removes one. `data` are arrays in place of the scenario's set:
    (x, y), or a mapping with x and y, or with x_train, y_train, x_test and y_test; x is [N, features] or images, y
    whole numbers or text [N]. `models` are the parties' kinds of models, in turn, in place of models.kinds: torch
    modules, scikit-learn classifiers, functions (input_shape, classes) that make either, or names. `data_folder` is
    where named sets lie, `output` the run's directory, by default a new one under runs/. With `progress` it tells how
    far it is on the error stream. Raises a CapcsimError for anything that the user can mend.
    """
    from capcsim.study.run import run_scenario

    wanted, given = _asked_for(scenario, set, seed, backend, data_folder, data, models)
    if not isinstance(output, str | PathLike | None) or "\0" in str(output):
        raise InputError(f"output: a directory's name; this is {output!r}")
    folder = Path(output) if output is not None else new_folder(_name(scenario))
    with _telling(progress) as stages, withdrawing(folder, named=output is not None), ONE_AT_A_TIME:
        run_scenario(wanted, folder, means=Means(stages, workers, engine, measure), adopt=adopt, given=given)
    return Run(folder)


@_as_python_says
def compare(
    scenario: Named,
    backends: str | Sequence[str],
    *,
    networks: str | Sequence[str] | Mapping[str, Network] = ("lan", "wan", "far", "slow"),
    set: Mapping[str, Any] | None = None,  # noqa: A002 (as the command's option)
    seed: int | None = None,
    data: Any = None,
    models: Sequence[Any] = (),
    data_folder: str | Path | None = None,
    repeats: int = 5,
    measure: bool = False,
    workers: int = 1,
    engine: Engine = "loky",
    progress: bool = False,
) -> Comparison:
    """Run a scenario on several backends and networks; its arguments are those of `run`, and the command's.

    `backends` are names, with options as in "crypten:provider=third-party". Raises a CapcsimError.
    """
    from capcsim.choices import parse_choices
    from capcsim.study.compare import compare as compare_backends

    wanted, given = _asked_for(scenario, set, seed, None, data_folder, data, models)
    choices, others = parse_choices(_listed("backends", backends)), _networks(networks)
    with _telling(progress) as stages, ONE_AT_A_TIME:
        means = Means(stages, workers, engine, measure)
        found = compare_backends(wanted, choices, others, repeats=repeats, means=means, given=given)
    return Comparison(found)


@_as_python_says
def account(
    votes: Any,
    *,
    mechanism: str | None = None,
    delta: float | None = None,
    sigma: float | None = None,
    scale: float | None = None,
    threshold: float | None = None,
    sigma1: float | None = None,
    noise: str | None = None,
    adjacency: str = "replace",
    group_size: int | None = None,
    budget: float | None = None,
    header: bool | None = None,
) -> Any:
    """Privacy accounting by every analysis: of counts, int[queries, classes], of a file of them, or of a Run.

    The other arguments are the command's. The answer prints as its table; `to_json()` and `account` have the figures.
    """
    from capcsim.accounting import account_of, parse_mechanism

    source = (
        votes.folder if isinstance(votes, Run) else Path(votes) if isinstance(votes, str | Path) else _counts(votes)
    )
    for name, value in {"delta": delta, "budget": budget, "group_size": group_size}.items():
        _check_number(name, value)
    parameters = {"sigma": sigma, "scale": scale, "threshold": threshold, "sigma1": sigma1}
    for name, value in parameters.items():
        _check_number(name, value)
    wanted = parse_mechanism(source, mechanism, parameters, adjacency=adjacency, group_size=group_size)
    return account_of(source, wanted, delta, noise=noise, budget=budget, header=header)


def _counts(votes: Any) -> Any:
    """Counts from Python; raises InputError."""
    from capcsim.privacy.votes import VoteCounts

    if hasattr(votes, "columns"):
        from capcsim.privacy.vote_files import votes_of_frame

        return votes_of_frame(votes)

    counts = _array("votes", votes)
    whole = counts.ndim == 2 and counts.dtype.kind in "iu" and counts.size > 0
    if not whole or counts.min() < 0 or counts.max() >= MOST:
        raise InputError(
            f"votes: whole numbers from 0, one row a query and one column a class; this is {counts.dtype}"
            f" of shape {counts.shape}"
        )
    return VoteCounts(counts.astype(np.int64))


def _asked_for(
    scenario: Named,
    changes: Mapping[str, Any] | None,
    seed: int | None,
    backend: str | None,
    data_folder: str | Path | None,
    data: Any,
    models: Sequence[Any],
) -> tuple[Scenario, Given]:
    """The scenario with what Python hands over named in it."""
    folder = None if data_folder is None else Path(data_folder)
    if isinstance(models, str | Mapping) or hasattr(models, "forward") or not hasattr(models, "__iter__"):
        raise InputError(f"models: a list of models, as in models=[model]; this is {_kind(models)}")
    models, overrides = list(models), _overrides(changes)
    seed = getattr(seed, "item", lambda: seed)()  # numpy's whole numbers too
    objects = [model for model in models if not isinstance(model, str)]
    own = {f"python:{_called(model)}{number or ''}": model for number, model in enumerate(objects)}
    if models:
        names = iter(own)
        overrides["models.kinds"] = [model if isinstance(model, str) else next(names) for model in models]
    if data is None:
        return load_scenario(scenario, overrides, seed=seed, backend=backend, folder=folder), Given(None, own)
    overrides |= {"data.source": ARRAYS, **_foreign(scenario)}
    wanted = load_scenario(scenario, overrides, seed=seed, backend=backend)
    return wanted, Given(_dataset(data, wanted), own)


def _overrides(changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """What `set` changes; raises InputError."""
    if not isinstance(changes, Mapping | None):
        raise InputError(f'set: a dictionary, as in set={{"privacy.sigma": 5}}; this is {_kind(changes)}')
    for key, value in (changes or {}).items():
        if not isinstance(key, str):
            raise InputError(f"set: {key!r} is no key; keys are texts, as in set={{'privacy.sigma': 5}}")
        if key in Scenario.model_fields and isinstance(value, Mapping):
            named = f"{key}.{next(iter(value), 'key')}"
            raise InputError(f"set: {key!r} is a section; name each key of it that changes, as in {named!r}")
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in (changes or {}).items()}


def _foreign(scenario: Named) -> dict[str, None]:
    """Keys of the scenario's own data that arrays do not have, each to be removed."""
    there = tree_of(scenario)[0].get("data", {})
    return {f"data.{key}": None for key in there if key not in GivenData.model_fields}


def _dataset(data: Any, scenario: Scenario) -> Any:
    from capcsim.learning.datasets import arrays_as_dataset

    if not isinstance(data, Mapping) and not (isinstance(data, tuple | list) and len(data) == 2):
        table = "; of a table: data=(table[features], table[label])" if hasattr(data, "columns") else ""
        raise InputError(f"data: (x, y), or a mapping of arrays with x and y; this is {_kind(data)}{table}")
    arrays = data if isinstance(data, Mapping) else dict(zip(("x", "y"), data, strict=True))
    assert isinstance(scenario.data, GivenData), "its source was set so"
    try:
        named = {str(name): _array(f"data: {name}", array) for name, array in arrays.items()}
        return arrays_as_dataset(Path(ARRAYS), named, scenario.data.missing)
    except ScenarioError as error:
        raise InputError(f"data: {error.allowed}") from None


def _array(name: str, value: Any) -> NDArray[Any]:
    """An array of something from Python; raises InputError."""
    if np.ma.isMaskedArray(value):
        raise InputError(f"{name} is a masked array, whose hidden values would be used: fill it, features with NaN")
    try:
        return np.asarray(value)
    except Exception as error:  # whatever it is may refuse in any way
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{name}: {_kind(value)} makes no array ({why})") from error


def _listed(name: str, value: Any) -> str:
    """Names with commas between; raises InputError."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence) or not all(isinstance(each, str) for each in value) or not value:
        raise InputError(f"{name}: a list of names, or names with commas between; this is {value!r}")
    return ",".join(value)


def _networks(given: Any) -> dict[str, Network]:
    """Networks by name: some that ship, or others in a mapping; raises InputError or ScenarioError."""
    from capcsim.choices import parse_networks

    if not isinstance(given, Mapping):
        return parse_networks(_listed("networks", given) if given else "")
    if strange := next((name for name, each in given.items() if not isinstance(each, Network)), None):
        allowed = "capcsim.load_scenario(SCENARIO, changes).network is one"
        raise InputError(f"networks: {strange!r} is {_kind(given[strange])}, not a Network; {allowed}")
    if SCENARIO_NETWORK in given:
        raise InputError(f"networks: {SCENARIO_NETWORK!r} is the scenario's own; give yours another name")
    return dict(given)


def _check_number(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
        raise InputError(f"{name}: a number; this is {value!r}")


def _kind(value: Any) -> str:
    """What a value is, in words."""
    return "nothing" if value is None else f"a {type(value).__name__}"


def _called(model: Any) -> str:
    name = getattr(model, "__name__", type(model).__name__)
    return "".join(sign if sign.isalnum() else "_" for sign in name)


def _name(scenario: Named) -> str:
    return Path(scenario).stem if isinstance(scenario, str | Path) else "run"


@contextmanager
def _telling(wanted: bool) -> Iterator[Progress]:
    """Progress on the error stream, or none."""
    if not wanted:
        yield Silent()
        return
    from capcsim.console import err
    from capcsim.progress import Stages

    with Stages(err, quiet=False) as stages:
        yield stages
