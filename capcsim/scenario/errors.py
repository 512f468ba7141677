"""What is wrong with a scenario, in words: every key at once, what was found there, what may stand there.

Ranges and words come from the JSON schema, so that errors, editors and documentation say the same.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from capcsim.errors import ScenarioError, closest

Node = Mapping[str, Any]
"""A part of a JSON schema."""
UNITS = {"_s": "seconds", "_bps": "bits per second", "_bytes": "bytes"}


def explain(error: ValidationError, model: type[BaseModel], source: str) -> ScenarioError:
    """All of pydantic's complaints about a `model` as one error in our words."""
    schema = _schema(model)
    details = error.errors(include_url=False, include_context=False)
    # A union complains once for each of its kinds.
    found = {problem.key: problem for problem in map(schema.problem, details)}
    # What is in a list says more than the list, of which another kind of the union complains.
    inner = [problem for key, problem in found.items() if not any(other.startswith(f"{key}.") for other in found)]
    return together(inner, source)


def together(problems: Sequence[ScenarioError], source: str = "") -> ScenarioError:
    """One error for one or more."""
    first, *others = problems
    return ScenarioError(first.key, first.value, first.allowed, source=source, others=others)


@cache
def _schema(model: type[BaseModel]) -> "Schema":
    return Schema(model.model_json_schema())


class Schema:
    """What may stand where, by a JSON schema."""

    def __init__(self, root: Node) -> None:
        self._root = root

    def problem(self, detail: Node) -> ScenarioError:
        """One of pydantic's complaints."""
        path, value = list(detail["loc"]), detail["input"]
        if detail["type"] == "extra_forbidden":
            return ScenarioError(_dotted(path), value, "no such key" + self._suggestion(path))
        # What follows the key are names that pydantic gives the kinds of a union.
        path, node = self._walk(path)
        allowed = self.expected(node, str(path[-1]) if path else "")
        if detail["type"] == "missing":
            meaning = f": {node['description']}" if "description" in node and "properties" not in node else ""
            return ScenarioError(_dotted(path), None, allowed + meaning)
        return ScenarioError(_dotted(path), value, allowed + self._remedy(node, value))

    def expected(self, node: Node, key: str = "") -> str:
        """What may stand at a part of the schema, in words."""
        node = self._plain(node)
        if "anyOf" in node:
            return _choice([self.expected(kind) for kind in node["anyOf"]])
        if "enum" in node:
            return _choice([repr(value) for value in node["enum"]])
        match node.get("type"):
            case "integer" | "number":
                unit = next((f", in {unit}" for suffix, unit in UNITS.items() if key.endswith(suffix)), "")
                return ("a whole number" if node["type"] == "integer" else "a number") + _range(node) + unit
            case "array":
                return f"a list in brackets, [...], of {_length(node)}{self._items(node)}"
            case "object" if "properties" in node:
                keys = self._required(node)
                return f"a section with {keys}" if keys else "a section"
            case "object":
                return f"a table of names, each with {self.expected(node['additionalProperties'])}"
            case "boolean":
                return "true or false"
            case _:
                return "text of one line, without control characters" if "pattern" in node else "text"

    def _required(self, node: Node) -> str:
        """The keys that a section must have, and those of the sections in it."""
        inner = {name: self._required(self._plain(node["properties"][name])) for name in node.get("required", ())}
        return _choice([f"{name} ({keys})" if keys else name for name, keys in inner.items()], "and")

    def _remedy(self, node: Node, value: object) -> str:
        """What a text was probably meant to be."""
        if not isinstance(value, str):
            return ""
        if node.get("type") == "array":
            return f"; did you mean [{value!r}]?"
        return closest(value, node.get("enum", ()))

    def _items(self, node: Node) -> str:
        item = self._plain(node["items"])
        return _choice([repr(value) for value in item["enum"]]) if "enum" in item else self.expected(item)

    def _suggestion(self, path: Sequence[str | int]) -> str:
        _, node = self._walk(path[:-1])
        known = list(node.get("properties", ()))
        close = get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        if close:
            return f"; did you mean {_dotted([*path[:-1], close[0]])}?"
        return f"; allowed here: {', '.join(known)}" if known else ""

    def _walk(self, path: Sequence[str | int]) -> tuple[list[str | int], Node]:
        """As much of a path as the schema has, and what it has there."""
        node, walked = self._plain(self._root), list[str | int]()
        for step in path:
            child = node.get("items") if isinstance(step, int) else node.get("properties", {}).get(step)
            # The names in a table of free names are its user's.
            if child is None and isinstance(node.get("additionalProperties"), Mapping):
                child = node["additionalProperties"]
            if child is None:
                break
            walked.append(step)
            node = self._plain(child)
        return walked, node

    def _plain(self, node: Node) -> Node:
        """A part without references, and without null beside the one kind that may stand there."""
        if "$ref" in node:
            rest = {key: value for key, value in node.items() if key != "$ref"}
            return {**self._root["$defs"][node["$ref"].rsplit("/", 1)[-1]], **rest}
        if "anyOf" in node:
            kinds = [kind for kind in node["anyOf"] if kind.get("type") != "null"]
            rest = {key: value for key, value in node.items() if key != "anyOf"}
            return {**self._plain(kinds[0]), **rest} if len(kinds) == 1 else {**rest, "anyOf": kinds}
        return node


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path))


def _choice(words: Sequence[str], joint: str = "or") -> str:
    *first, last = words or ("",)
    return f"{', '.join(first)} {joint} {last}" if first else last


def _range(node: Node) -> str:
    """The range of a number."""
    least, most = node.get("minimum"), node.get("maximum")
    if least is not None and most is not None:
        return f" from {_number(least)} to {_number(most)}"
    bounds = [
        f"{word} {_number(node[key])}"
        for key, word in (
            ("minimum", "of at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if key in node
    ]
    return f" {' and '.join(bounds)}" if bounds else ""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _length(node: Node) -> str:
    least, most = node.get("minItems"), node.get("maxItems")
    if least is not None and most is not None:
        return f"{least} to {most}: "
    return f"at least {least}: " if least is not None else f"at most {most}: " if most is not None else ""
