"""Scenarios from TOML files and overrides: `load_scenario` is the way in.

Every mistake becomes one ScenarioError that gives the key's path, the value found, and what is allowed.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from capcsim.errors import ScenarioError
from capcsim.scenario import Scenario


def load_scenario(
    name: str,
    overrides: Iterable[str] = (),
    *,
    seed: int | None = None,
    backend: str | None = None,
    folder: Path | None = None,
) -> Scenario:
    """A scenario from a TOML file, or from the name of one that ships with capcsim.

    `overrides` are "a.b=v" with v as in TOML (a bare word is a string); "a.b=" removes the key. `folder` is where
    named data sets lie. Raises ScenarioError.
    """
    path = find_scenario(name)
    tree = _read_toml(path)
    _anchor_data_path(tree, path.parent)
    for override in overrides:
        _set(tree, override)
    if seed is not None:
        tree["seed"] = seed
    if backend is not None:
        _set(tree, f"protocol.backend={backend}")
    if folder is not None:
        tree.setdefault("data", {})["folder"] = str(folder)
    return parse_scenario(tree, source=path.name)


def parse_scenario(tree: Mapping[str, Any], *, source: str = "") -> Scenario:
    """A scenario from nested dictionaries; raises ScenarioError, naming `source`."""
    try:
        return Scenario.model_validate(tree)
    except ValidationError as error:
        raise _first(error, source) from None
    except ScenarioError as error:
        raise error.in_source(source) from None


def shipped_scenarios() -> dict[str, Path]:
    """The scenarios that ship with capcsim, by name."""
    package = Path(str(files("capcsim")))
    # An installed wheel carries them inside the package; a checkout has them beside it.
    folder = package / "_scenarios" if (package / "_scenarios").is_dir() else package.parent / "scenarios"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_scenario(name: str) -> Path:
    """The file that a name or path means; raises ScenarioError."""
    shipped = shipped_scenarios()
    if name in shipped:
        return shipped[name]
    path = Path(name)
    if not path.exists():
        close = difflib.get_close_matches(name, shipped, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ScenarioError("scenario", name, f"no such file; give a TOML file, or one of {', '.join(shipped)}{hint}")
    return path


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError("scenario", str(path), f"a readable file ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError("scenario", str(path), f"a file in TOML ({error})") from None


def _set(tree: dict[str, Any], override: str) -> None:
    """Apply one "a.b=v" to the tree."""
    key, separator, text = override.partition("=")
    steps = key.strip().split(".")
    if not separator or not all(steps):
        raise ScenarioError("--set", override, "a.b=v, for example privacy.sigma=10")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for step in steps[:-1]:
        child = tree.setdefault(step, {})
        if not isinstance(child, dict):
            raise ScenarioError("--set", override, f"{step} is a value here, not a section")
        tree = child
    if text.strip():
        tree[steps[-1]] = value
    else:
        tree.pop(steps[-1], None)


def _anchor_data_path(tree: dict[str, Any], folder: Path) -> None:
    """A relative data.path or data.folder is meant from the scenario's own folder."""
    data = tree.get("data")
    for key in ("path", "folder"):
        if isinstance(data, dict) and isinstance(data.get(key), str):
            data[key] = str((folder / data[key]).resolve())


def _first(error: ValidationError, source: str) -> ScenarioError:
    """The first of pydantic's complaints in our words, with the number of the others."""
    details = error.errors()
    detail = details[0]
    path = [str(step) for step in detail["loc"]]
    allowed = detail["msg"].replace("Input should", "must", 1)
    value: object = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            allowed = "no such key" + _suggestion(path)
        case "missing":
            value, allowed = None, "required" + _meaning(path)
        case "tuple_type":
            allowed = "a list in brackets, [...]"
        case "float_type" | "int_type" | "float_parsing" | "int_parsing":
            allowed = ("a whole number" if "int" in detail["type"] else "a number") + _unit(path[-1])
    if len(details) > 1:
        allowed += f" (and {len(details) - 1} more)"
    return ScenarioError(".".join(path), value, allowed, source=source)


def _unit(key: str) -> str:
    units = {"_s": "seconds", "_bps": "bits per second", "_bytes": "bytes"}
    return next((f", in {unit}" for suffix, unit in units.items() if key.endswith(suffix)), "")


def _section_at(path: list[str]) -> type[BaseModel] | None:
    """The model that holds the last key of a path."""
    section: type[BaseModel] = Scenario
    for step in path[:-1]:
        field = section.model_fields.get(step)
        candidates = [] if field is None else [field.annotation, *get_args(field.annotation)]
        found = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not found:
            return None
        section = found[0]
    return section


def _suggestion(path: list[str]) -> str:
    section = _section_at(path)
    known = list(section.model_fields) if section else []
    close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {'.'.join([*path[:-1], close[0]])}?"
    return f"; allowed here: {', '.join(known)}" if known else ""


def _meaning(path: list[str]) -> str:
    section = _section_at(path)
    field = section.model_fields.get(path[-1]) if section else None
    return f": {field.description}" if field and field.description else ""
