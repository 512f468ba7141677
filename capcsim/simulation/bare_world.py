"""A bare world: machines, sites, latencies, graphs and when batches come; JSON, without scenario or cryptography."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from capcsim.errors import InputError, ScenarioError
from capcsim.scenario import explain

_Real: TypeAlias = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
_Positive: TypeAlias = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]
_Role: TypeAlias = Literal["querier", "answerer", "guardian"]
_Places: TypeAlias = tuple[int, ...]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Site(_Part):
    """A site's backbone, out of and into it, in bits/s; null is unlimited."""

    up_bps: _Positive | None = None
    down_bps: _Positive | None = None


class Machine(_Part):
    """A machine with so many cores, each `speed` times as fast as seconds say, and its access line in bits/s."""

    site: str
    cores: Annotated[int, Field(ge=1, le=4096)]
    speed: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    up_bps: _Positive | None = None
    down_bps: _Positive | None = None


class Party(_Part):
    """Where a party works; several may share a machine."""

    machine: str


class Work(_Part):
    """A stretch of a role's work, which begins when the nodes in `after`, all earlier ones, have ended."""

    role: _Role
    seconds: _Real
    after: _Places = ()


class Message(_Part):
    """A message from a role to another."""

    from_: _Role = Field(alias="from")
    to: _Role
    bytes: _Real
    after: _Places = ()


def _kind(found: Any) -> str:
    return "work" if isinstance(found, dict) and "role" in found else "message"


Node: TypeAlias = Annotated[Annotated[Work, Tag("work")] | Annotated[Message, Tag("message")], Discriminator(_kind)]


class Pair(_Part):
    """An answering party, and the transcript that it and the querying party replay."""

    answerer: str
    transcript: str


class Session(_Part):
    """A querying party's batches: all pairs, then the closing graph of querying party and guardian, one at a time."""

    querier: str
    guardian: str
    pairs: tuple[Pair, ...]
    closing: str | None = None
    arrivals_s: tuple[_Real, ...]


class BareWorld(_Part):
    """Everything by name; latencies are one way, in seconds, from a site to a site."""

    sites: dict[str, Site]
    latency_s: dict[str, dict[str, _Real]]
    machines: dict[str, Machine]
    parties: dict[str, Party]
    transcripts: dict[str, tuple[Node, ...]]
    sessions: tuple[Session, ...]


def read_world(path: Path) -> Any:
    """What a JSON file holds, not yet checked; raises InputError for one that cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON: {error}; docs/simulation.md says what a world is") from None


def checked(found: Any, source: str = "world") -> BareWorld:
    """A checked world; raises one ScenarioError for all that is wrong with it."""
    try:
        world = BareWorld.model_validate(found)
    except ValidationError as error:
        raise explain(error, BareWorld, source) from None
    problems = [ScenarioError(key, value, allowed, source=source) for key, value, allowed in _problems(world)]
    if problems:
        first, *others = problems
        raise ScenarioError(first.key, first.value, first.allowed, source=source, others=others)
    return world


_Problem: TypeAlias = tuple[str, object, str]


def _problems(world: BareWorld) -> Iterator[_Problem]:
    """What stands in the wrong place: keys, what is found there, what may stand there."""
    for name, machine in world.machines.items():
        yield from _known(f"machines.{name}.site", machine.site, world.sites)
    for name, party in world.parties.items():
        yield from _known(f"parties.{name}.machine", party.machine, world.machines)
    for a in world.sites:
        for b in world.sites:
            if b not in world.latency_s.get(a, {}):
                yield f"latency_s.{a}.{b}", None, "seconds, one way, from each site to each, also within one"
    for name, nodes in world.transcripts.items():
        for number, node in enumerate(nodes):
            if not all(0 <= before < number for before in node.after):
                yield (
                    f"transcripts.{name}.{number}.after",
                    list(node.after),
                    f"earlier nodes, from 0 to {number - 1}" if number else "nothing: it is the first",
                )
    for number, session in enumerate(world.sessions):
        yield from _session_problems(world, session, f"sessions.{number}")


def _session_problems(world: BareWorld, session: Session, key: str) -> Iterator[_Problem]:
    for role in ("querier", "guardian"):
        yield from _known(f"{key}.{role}", getattr(session, role), world.parties)
    for number, pair in enumerate(session.pairs):
        yield from _known(f"{key}.pairs.{number}.answerer", pair.answerer, world.parties)
        yield from _known(f"{key}.pairs.{number}.transcript", pair.transcript, world.transcripts)
    if session.closing is not None:
        yield from _known(f"{key}.closing", session.closing, world.transcripts)
        if any("answerer" in roles(node) for node in world.transcripts.get(session.closing, ())):
            yield f"{key}.closing", session.closing, "a transcript of querier and guardian alone"
    if any(later < earlier for earlier, later in pairwise(session.arrivals_s)):
        yield f"{key}.arrivals_s", list(session.arrivals_s), "ascending times"


def roles(node: Work | Message) -> Sequence[str]:
    """Who takes part in a node."""
    return (node.role,) if isinstance(node, Work) else (node.from_, node.to)


def _known(key: str, name: str, names: dict[str, Any]) -> Iterator[_Problem]:
    if name not in names:
        yield key, name, f"one of {', '.join(names) or 'those that the world has, and it has none'}"
