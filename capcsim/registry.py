"""Finds backends by the entry-point group `capcsim.backends`: ours exactly like anybody's."""

import inspect
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distribution, entry_points
from importlib.util import find_spec
from typing import cast

from capcsim.backend import OFFERS, SECURITY, Backend, Capabilities
from capcsim.errors import BackendNotFound, BackendUnavailable, InputError

GROUP = "capcsim.backends"
EXTRA = re.compile("extra == [\"'](.*?)[\"']")
"""In a requirement: the extra that asks for it."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of one backend without importing what it needs.

    `missing` are the import names that cannot be found; `problem` is set when the package itself fails.
    """

    name: str
    package: str
    version: str
    capabilities: Capabilities | None
    missing: tuple[str, ...]
    problem: str
    install: str

    @property
    def available(self) -> bool:
        """Whether `load` will succeed."""
        return not self.missing and not self.problem


def names() -> tuple[str, ...]:
    """The names of all installed backends, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def status(name: str) -> Status:
    """What a backend offers and what it lacks; raises BackendNotFound."""
    entry, rival = _entry(name)
    package = entry.dist.name if entry.dist else "unknown"
    version = entry.dist.version if entry.dist else "unknown"
    if rival:
        problem = f"the packages {package} and {rival} both offer it"
        return Status(name, package, version, None, (), problem, f"pip uninstall {rival}")
    try:
        capabilities = _backend_class(entry).capabilities
    except Exception as error:  # a foreign package may fail in any way; the others must still be listed
        remedy = f"python -c 'import {entry.module}' shows where; install what {package} needs"
        return Status(name, package, version, None, (), f"{type(error).__name__}: {error}", remedy)
    missing = tuple(need for need in capabilities.needs if find_spec(need) is None)
    return Status(name, package, version, capabilities, missing, _wrong(capabilities), _install(package, missing))


def load(name: str, options: Mapping[str, object] | None = None) -> Backend:
    """A new backend of this name, made with its own options; raises BackendNotFound or BackendUnavailable.

    Raises InputError for an option that it does not take.
    """
    found = status(name)
    if not found.available:
        why = found.problem or f"{', '.join(found.missing)} cannot be imported"
        raise BackendUnavailable(name, why, found.install)
    chosen = _backend_class(_entry(name)[0])
    _check_options(name, chosen, options or {})
    try:
        backend: object = chosen(**(options or {}))
    except InputError:
        raise
    except Exception as error:  # as above
        raise BackendUnavailable(name, f"{type(error).__name__}: {error}", found.install) from error
    return _complete(name, backend)


def _complete(name: str, backend: object) -> Backend:
    """The backend, if it has the interface and what it offers; raises BackendUnavailable."""
    where = f"{type(backend).__module__}.{type(backend).__name__}"
    if not isinstance(backend, Backend):
        lacks = ", ".join(sorted(name for name in dir(Backend) if name[0] != "_" and not hasattr(backend, name)))
        why = f"it lacks {lacks}; a backend that only infers inherits capcsim.twoparty.voting.Voting"
        raise BackendUnavailable(name, why, f"implement them in {where}")
    for offer in OFFERS:
        if offer.of(backend) and not offer.is_in(backend):
            why = f"its capabilities offer {offer.name!r}, and it has no {offer.member}"
            raise BackendUnavailable(name, why, f"implement it in {where}, or leave it out of the offers")
    return backend


def _check_options(name: str, backend: type[Backend], options: Mapping[str, object]) -> None:
    taken = [key for key in inspect.signature(backend).parameters if key not in ("args", "kwargs")]
    for key in options:
        if key not in taken:
            raise InputError(
                f"backend {name!r} has no option {key!r}; it takes {', '.join(taken) or 'none'}; leave it out"
            )


def missing_requirements(package: str = "capcsim") -> tuple[str, ...]:
    """The requirements of an installed package (extras left out) that are absent here."""
    try:
        requirements = distribution(package).requires or []
    except PackageNotFoundError:
        return ()
    return tuple(text for text in requirements if "extra ==" not in text and not _installed(text))


def _install(package: str, missing: Sequence[str]) -> str:
    """How to get what a package lacks: where extras ask for it, by the one that asks for least besides."""
    requirements = (distribution(package).requires or []) if missing and _installed(package) else []
    asked = [(found[1], _name(text)) for text in requirements if (found := EXTRA.search(text))]
    size = Counter(extra for extra, _ in asked)
    chosen = set()
    for need in map(_name, missing):
        extras = [extra for extra, name in asked if name == need]
        chosen.update(sorted(extras, key=lambda extra: (size[extra], extra))[:1])
    return f"pip install '{package}[{','.join(sorted(chosen))}]'" if chosen else f"pip install {package}"


def _name(requirement: str) -> str:
    """As packages' names are compared; modules of one name are taken for theirs."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~;\[ (]", requirement, maxsplit=1)[0]).lower()


def _installed(requirement: str) -> bool:
    try:
        distribution(_name(requirement))
    except PackageNotFoundError:
        return False
    return True


def _entry(name: str) -> tuple[EntryPoint, str]:
    """The entry point of a backend, and the name of another package that offers it too, if one does."""
    found = sorted((e for e in entry_points(group=GROUP) if e.name == name), key=lambda e: _package(e.dist))
    if not found:
        raise BackendNotFound(name, names())
    rivals = [_package(entry.dist) for entry in found if _package(entry.dist) != _package(found[0].dist)]
    return found[0], rivals[0] if rivals else ""


def _wrong(capabilities: Capabilities) -> str:
    """What a backend says of itself that cannot be so."""
    if capabilities.security not in SECURITY:
        return f"its security is {capabilities.security!r}; allowed: {', '.join(SECURITY)}"
    known = [offer.name for offer in OFFERS]
    unknown = sorted(set(capabilities.offers).difference(known))
    return f"it offers {', '.join(map(repr, unknown))}; known: {', '.join(known)}" if unknown else ""


def _package(dist: Distribution | None) -> str:
    return dist.name if dist else "unknown"


def _backend_class(entry: EntryPoint) -> type[Backend]:
    return cast("type[Backend]", entry.load())
