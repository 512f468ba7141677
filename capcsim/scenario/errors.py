"""What is wrong with a scenario, in words: every key at once, what was found there, what may stand there.

Ranges and words come from the JSON schema, so that errors, editors and documentation say the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from capcsim.errors import ScenarioError, closest
from capcsim.scenario.base import APART

Node = Mapping[str, Any]
"""A part of a JSON schema."""
KEY = "[key]"
"""Pydantic's word for the name itself, in a table of free names."""
FORMATS = {
    "file-path": "a file",
    "date": "a day such as 2026-12-24",
    "date-time": "a time such as 2026-12-24T08:00:00, of the years 1970 to 2199",
}
UNITS = {"_s": "seconds", "_bps": "bits per second", "_bytes": "bytes"}


def explain(error: ValidationError, model: type[BaseModel], source: str) -> ScenarioError:
    """All of pydantic's complaints about a `model` as one error in our words."""
    details = error.errors(include_url=False, include_context=False)
    # A union complains once for each of its kinds.
    found = {problem.key: problem for problem in _schema(model).problems(details)}
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


@dataclass(frozen=True)
class Kind:
    """One kind of a section of several, which `tag` tells apart; each is a schema without references."""

    section: str
    tag: str
    chosen: Node
    every: Sequence[Node]

    def is_common(self, key: str) -> bool:
        """Whether every kind has the key, but those that have nothing in common with the others."""
        return APART not in self.chosen and all(key in kind["properties"] for kind in self._alike)

    @property
    def _alike(self) -> list[Node]:
        return [kind for kind in self.every if APART not in kind]

    def is_foreign(self, key: str) -> bool:
        """Whether other kinds have the key, and this one has not."""
        return key not in self.chosen["properties"] and any(key in kind["properties"] for kind in self.every)

    def is_needed(self, key: str) -> bool:
        """Whether some kinds must have the key, and others have not."""
        kinds = [*self._alike, self.chosen]
        return not self.is_common(key) and any(key in kind.get("required", ()) for kind in kinds)

    def removal(self, key: str) -> str:
        """What to do with a foreign key."""
        takers = [repr(tag) for kind in self.every if key in kind["properties"] for tag in _words(kind, self.tag)]
        only = f"only {self.section}.{self.tag} = {_choice(takers)} takes it"
        own = _choice(
            [f"{self.section}.{name}" for name in self.chosen.get("required", ()) if self.is_needed(name)], "and"
        )
        return f"remove it: {f'{self.name} takes {own}; ' if own else ''}{only}"

    @property
    def name(self) -> str:
        """What stands at its tag."""
        return _choice(_words(self.chosen, self.tag))


@dataclass(frozen=True)
class Complaint:
    """One of pydantic's. `node` is the schema at `path`, or of the section that has no such key.

    In a section of several kinds, `kind` is the one that complains, about its `key`. `is_name` says that it is about a
    name that the user chose.
    """

    type: str
    path: Sequence[str | int]
    value: object
    node: Node
    kind: Kind | None
    key: str
    is_name: bool = False

    def is_beside(self, other: "Complaint") -> bool:
        """Whether both are about one section of several kinds."""
        return self.kind is not None and other.kind is not None and self.kind.section == other.kind.section


class Schema:
    """What may stand where, by a JSON schema."""

    def __init__(self, root: Node) -> None:
        self._root = root

    def problems(self, details: Iterable[Node]) -> list[ScenarioError]:
        """All of pydantic's complaints, without those that only another one brings about."""
        complaints = [self._complaint(detail) for detail in details]
        told = []
        for one in complaints:
            allowed = self._allowed(one, [other for other in complaints if other.is_beside(one)])
            if allowed:
                told.append(ScenarioError(_dotted(one.path), None if one.type == "missing" else one.value, allowed))
        return told

    def _complaint(self, detail: Node) -> Complaint:
        path = list(detail["loc"])
        walked, node, kind, key = self._walk(path[:-1] if detail["type"] == "extra_forbidden" else path)
        if detail["type"] == "extra_forbidden":
            walked.append(path[-1])
            key = key or str(path[-1])
        # What follows the key are names that pydantic gives the kinds of a union.
        is_name = bool(path) and path[-1] == KEY
        return Complaint(detail["type"], walked, detail["input"], node, kind, key, is_name)

    def _allowed(self, one: Complaint, beside: Sequence[Complaint]) -> str:
        """What may stand there; nothing where that depends on what the complaints `beside` it are about."""
        kind = one.kind
        if kind is None or kind.is_common(one.key):
            return self._plainly(one)
        foreign = kind.is_foreign(one.key)
        if any(other.key == kind.tag for other in beside) and (foreign or one.key in kind.chosen["properties"]):
            return ""
        needed = [other for other in beside if kind.is_needed(other.key)]
        missing = [other.key for other in needed if other.type == "missing"]
        given = [other.key for other in needed if kind.is_foreign(other.key)]
        if foreign:
            return "" if missing and one.key in given else kind.removal(one.key)
        if one.key not in missing:
            return self._plainly(one)
        name = f"{kind.section}.{given[0]}" if given else ""
        instead = f", in place of {name} (--set {name}= removes it)" if given else ""
        return f"{self.expected(one.node)} for {kind.name}{instead}{_meaning(one.node)}"

    def _plainly(self, one: Complaint) -> str:
        if one.type == "extra_forbidden":
            return "no such key" + self._suggestion(one)
        if one.is_name:
            return "a name of letters, digits, - and _, at most 60"
        allowed = self.expected(one.node, str(one.path[-1]) if one.path else "")
        return allowed + (_meaning(one.node) if one.type == "missing" else self._remedy(one.node, one.value))

    def expected(self, node: Node, key: str = "") -> str:
        """What may stand at a part of the schema, in words."""
        node = self._plain(node)
        if "anyOf" in node or "enum" in node:
            return _choice(self._choices(node))
        match node.get("type"):
            case "integer" | "number":
                unit = next((f", in {unit}" for suffix, unit in UNITS.items() if key.endswith(suffix)), "")
                return ("a whole number" if node["type"] == "integer" else "a number") + _range(node) + unit
            case "array":
                return f"a list in brackets, [...], of {_length(node)}{self.expected(node['items'])}"
            case "object" if "properties" in node:
                keys = self._required(node)
                return f"a section with {keys}" if keys else "a section"
            case "object":
                return f"a table of names, each with {self.expected(_of_free_names(node) or {})}"
            case "boolean":
                return "true or false"
            case _ if node.get("format") in FORMATS:
                return FORMATS[node["format"]]
            case _ if "examples" in node:
                return f"text like {node['examples'][0]!r}"
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
        return closest(value, [word for kind in node.get("anyOf", [node]) for word in kind.get("enum", ())])

    def _choices(self, node: Node) -> list[str]:
        """Each of the kinds or words that may stand there."""
        if "anyOf" in node:
            return [word for kind in node["anyOf"] for word in self._choices(self._plain(kind))]
        return [repr(value) for value in node["enum"]] if "enum" in node else [self.expected(node)]

    def _suggestion(self, one: Complaint) -> str:
        known = list(one.node.get("properties", ()))
        close = get_close_matches(str(one.path[-1]), known, n=1, cutoff=0.5)
        if close:
            return f"; did you mean {_dotted([*one.path[:-1], close[0]])}?"
        return f"; allowed here: {', '.join(known)}" if known else ""

    def _walk(self, path: Sequence[str | int]) -> tuple[list[str | int], Node, Kind | None, str]:
        """As much of a path as the schema has, what it has there, and the kind of a section that this is in."""
        node, walked, kind, key = self._plain(self._root), list[str | int](), None, ""
        for step in path:
            if step in node.get("kinds", ()):
                # Not a key but pydantic's name of the kind.
                kind = self._kind(_dotted(walked), node, str(step))
                node = {**kind.chosen, "properties": {**kind.chosen["properties"], kind.tag: _tags(kind)}}
                continue
            child = node.get("items") if isinstance(step, int) else node.get("properties", {}).get(step)
            # The names in a table of free names are its user's.
            if child is None and step != KEY:
                child = _of_free_names(node)
            if child is None:
                break
            walked.append(step)
            key = key or (str(step) if kind else "")
            node = self._plain(child)
        return walked, node, kind, key

    def _kind(self, section: str, node: Node, name: str) -> Kind:
        kinds = {name: self._plain(kind) for name, kind in node["kinds"].items()}
        return Kind(section, node["discriminator"]["propertyName"], kinds[name], list(kinds.values()))

    def _plain(self, node: Node) -> Node:
        """A part without references, and without null beside the one kind that may stand there.

        Of several kinds of a section it is the first, with all of them as "kinds", by their classes' names.
        """
        if "$ref" in node:
            rest = {key: value for key, value in node.items() if key != "$ref"}
            return {**self._root["$defs"][_class(node)], **rest}
        if "oneOf" in node:
            rest = {key: value for key, value in node.items() if key != "oneOf"}
            return {**self._plain(node["oneOf"][0]), **rest, "kinds": {_class(kind): kind for kind in node["oneOf"]}}
        if "anyOf" in node:
            kinds = [kind for kind in node["anyOf"] if kind.get("type") != "null"]
            rest = {key: value for key, value in node.items() if key != "anyOf"}
            return {**self._plain(kinds[0]), **rest} if len(kinds) == 1 else {**rest, "anyOf": kinds}
        return node


def _of_free_names(node: Node) -> Node | None:
    """What stands at each name of a table whose names are free."""
    others = node.get("additionalProperties")
    if isinstance(others, Mapping):
        return others
    by_pattern: Mapping[str, Node] = node.get("patternProperties", {})
    return next(iter(by_pattern.values()), None)


def _class(reference: Node) -> str:
    return str(reference["$ref"].rsplit("/", 1)[-1])


def _words(kind: Node, key: str) -> list[str]:
    """The words that may stand at a key of a kind."""
    node = kind["properties"][key]
    return list(node["enum"]) if "enum" in node else [node["const"]]


def _tags(kind: Kind) -> Node:
    """What may stand at the tag of a section, of whichever kind."""
    return {"type": "string", "enum": [word for every in kind.every for word in _words(every, kind.tag)]}


def _meaning(node: Node) -> str:
    """What a missing key is for."""
    return f": {node['description']}" if "description" in node and "properties" not in node else ""


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
