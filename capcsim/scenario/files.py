"""Scenarios from TOML files and overrides: `load_scenario` is the way in.

Every mistake becomes one ScenarioError that gives the key's path, the value found, and what is allowed.
"""

import copy
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from capcsim.errors import ScenarioError, closest
from capcsim.scenario.base import tags
from capcsim.scenario.data import ArrayData, BundledData, TableData
from capcsim.scenario.errors import explain
from capcsim.scenario.scenario import Scenario


def load_scenario(
    given: "str | Path | Mapping[str, Any] | Scenario",
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    seed: int | None = None,
    backend: str | None = None,
    folder: Path | None = None,
) -> Scenario:
    """A scenario from a TOML file, from the name of one that ships with capcsim, from nested dictionaries, or another.

    `overrides` are "a.b=v" with v as in TOML (a bare word is a string), where "a.b=" removes the key; or values by
    key, where None removes it. `folder` is where named data sets lie. Raises ScenarioError.
    """
    tree, source = tree_of(given)
    try:
        before = copy.deepcopy(tree)
        if isinstance(overrides, Mapping):
            for key, value in overrides.items():
                _put(tree, key, f"{key}={value}", value.item() if hasattr(value, "item") else value)
        else:
            for override in overrides:
                _override(tree, override)
        changed = tuple(_changes(before, tree))
    except RecursionError:
        raise ScenarioError("SCENARIO", source or "given", "a scenario; its keys are nested too deeply") from None
    # What is no table there is told by what reads the tree.
    if backend is not None and isinstance(tree.setdefault("protocol", {}), dict):
        tree["protocol"]["backend"] = backend
    if folder is not None and isinstance(tree.setdefault("data", {}), dict):
        _check_in_folder(tree["data"].get("source"), folder)
        tree["data"]["folder"] = str(folder)
    if seed is not None:
        tree["seed"] = seed
    return parse_scenario(tree, source=source).with_changes(changed)


def tree_of(given: "str | Path | Mapping[str, Any] | Scenario") -> tuple[dict[str, Any], str]:
    """A scenario's keys, and the name of the file that they are from, if any."""
    if isinstance(given, Scenario):
        tree: dict[str, Any] = given.model_dump(mode="json")
        return tree, ""
    if isinstance(given, Mapping):
        return copy.deepcopy(dict(given)), ""
    path = find_scenario(str(given))
    tree = _read_toml(path)
    _anchor_data_path(tree, path.parent)
    return tree, path.name


def parse_scenario(tree: Mapping[str, Any], *, source: str = "") -> Scenario:
    """A scenario from nested dictionaries; raises ScenarioError, naming `source`."""
    try:
        return Scenario.model_validate(tree)
    except ValidationError as error:
        raise explain(error, Scenario, source) from None
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
    try:
        path.stat()
    except (FileNotFoundError, ValueError):
        allowed = f"no such file; give a TOML file, or one of {', '.join(shipped)}{closest(name, shipped)}"
        raise ScenarioError("SCENARIO", name, allowed) from None
    except OSError as error:
        raise ScenarioError("SCENARIO", name, f"a readable file ({error.strerror})") from None
    return path


def _read_toml(path: Path) -> dict[str, Any]:
    """A file's keys; a byte-order mark is read over."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ScenarioError("SCENARIO", str(path), f"a readable file ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ScenarioError("SCENARIO", str(path), "a file in TOML; this is no text in UTF-8") from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ScenarioError("SCENARIO", str(path), f"a file in TOML; {_complaint(error, text)}") from None


def _complaint(error: Exception, text: str) -> str:
    """What the TOML reader says, with the line that it means."""
    if isinstance(error, RecursionError):
        return "its brackets are nested too deeply"
    said = str(error)
    found = re.search(r" \(at line (\d+), column \d+\)$", said)
    if found is None:
        return said if isinstance(error, tomllib.TOMLDecodeError) else "it has a number with too many digits"
    line = text.splitlines()[int(found[1]) - 1].strip()
    remedy = """; a backslash between "..." is written twice, or put the text between '...'""" if "\\" in line else ""
    return f"{said[: found.start()]} in line {found[1]}: {line[:60]!r}{remedy}"


def _check_in_folder(source: object, folder: Path) -> None:
    """No folder for what lies in none; raises ScenarioError."""
    if any(source in tags(kind, "source") for kind in (BundledData, ArrayData, TableData)):
        raise ScenarioError("--data", str(folder), f"leave it out: data.source = {source!r} is no set in a folder")


def _override(tree: dict[str, Any], override: str) -> None:
    """Apply one "a.b=v" to the tree."""
    key, separator, text = override.partition("=")
    if not separator:
        raise ScenarioError("--set", override, "a.b=v, for example privacy.sigma=10")
    _put(tree, key, override, _value(override, text.strip()) if text.strip() else None)


def _put(tree: dict[str, Any], key: str, override: str, value: Any) -> None:
    """Set one "a.b" of the tree; None removes it."""
    steps = [step.strip() for step in key.split(".")]
    if not all(steps):
        raise ScenarioError("--set", override, "a.b=v, for example privacy.sigma=10")
    for step in steps[:-1]:
        child = tree.setdefault(step, {})
        if not isinstance(child, dict):
            raise ScenarioError("--set", override, f"{step} is a value here, not a section")
        tree = child
    if value is None:
        tree.pop(steps[-1], None)
    else:
        tree[steps[-1]] = value


def _value(override: str, text: str) -> Any:
    """A value as in TOML, or a bare word."""
    try:
        found = tomllib.loads(f"v = {text}")
    except (ValueError, RecursionError):
        if text[0] in "[{\"'":
            allowed = "a value in TOML, where text inside brackets stands in quotes, as in models.kinds=['mlp']"
            raise ScenarioError("--set", override, allowed) from None
        return text
    return found["v"] if len(found) == 1 else text


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """What differs between two trees, as "a.b = v" or "a.b removed"; the title is what it is."""
    for key in dict.fromkeys([*before, *after]):
        old, new, name = before.get(key), after.get(key), f"{prefix}{key}"
        if old == new or name == "title":
            continue
        if isinstance(new, dict):
            yield from _changes(old if isinstance(old, dict) else {}, new, f"{name}.")
        elif new is None:
            yield f"{name} removed"
        else:
            text = new if isinstance(new, str) else json.dumps(new, default=str)
            yield f"{name} = {text if len(text) <= 40 else text[:37] + '...'}"


def _anchor_data_path(tree: dict[str, Any], folder: Path) -> None:
    """A relative path of data or of a trace is meant from the scenario's own folder."""
    groups = tree.get("groups")
    own = (
        [group.get("workload") for group in groups.values() if isinstance(group, dict)]
        if isinstance(groups, dict)
        else []
    )
    for section in (tree.get("data"), tree.get("workload"), *own):
        for key in ("path", "folder"):
            if isinstance(section, dict) and isinstance(section.get(key), str):
                section[key] = str((folder / section[key]).resolve())
