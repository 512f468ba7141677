"""What has happened: the engine's rows, as tables of work and messages, and sums over them.

Rows are kept in memory up to a limit, then in a temporary file: a simulation may have more of them than fit.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any, TypeAlias
from weakref import finalize

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from capcsim.backend import Compute, Message, Phase, Role
from capcsim.simulation.engine.engine import Rows
from capcsim.simulation.engine.records import LOG

MOST_BYTES = 1 << 28
"""Rows that stay in memory."""
PHASES, ROLES = tuple(Phase), tuple(Role)
_PHASE, _ROLE = ({each: number for number, each in enumerate(some)} for some in (PHASES, ROLES))
GATE, WORK, MESSAGE = -1, 0, 1
"""Kinds of nodes."""
_NODE = np.dtype([(name, "i8") for name in ("kind", "role", "to", "step", "phase", "nbytes")])
Columns: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Location:
    """Where graphs run: for which querying party, and each role's host and machine."""

    querier: int
    hosts: dict[Role, str]
    machines: dict[Role, str]


class Log:
    """Rows by chunks, what they mean, and sums over them.

    `bytes[place, step, sender, receiver]` went from one machine to another, `busy_s[place, step, role]` is what cores
    worked for it, by the numbers that `steps` have; `last_s` is when the last row ended. The meaning of a place, a
    template and a core comes before the first row that has it.
    """

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}
        self.bytes = np.zeros((0, 0, len(ROLES), len(ROLES)), np.int64)
        self.busy_s = np.zeros((0, 0, len(ROLES)))
        self.last_s, self.messages_written = 0.0, 0
        self.locations: list[Location] = []
        self._apart = np.zeros((0, len(ROLES), len(ROLES)), np.bool_)
        self._first: list[int] = []
        self._nodes, self._fresh = np.zeros(0, _NODE), list[tuple[int, ...]]()
        self._kinds = self._codes = np.zeros(0, np.int64)
        self._cores: list[int] = []
        self._chunks: list[Rows] = []
        self._starts: list[int] = []
        self._filed = self._written = 0
        self._file: IO[bytes] | None = None

    # -- what rows mean -----------------------------------------------------------------------------------------------

    def add_template(self, nodes: Sequence[Compute | Message | None]) -> None:
        """The next template; None are its gates, which are in no row."""
        self._first.append(len(self._nodes) + len(self._fresh))
        self._fresh += [self._numbers(node) for node in nodes]

    def add_pool(self, cores: int) -> None:
        """The next cores; in the tables they are numbered within their pool."""
        self._cores += range(cores)

    def _settle(self) -> None:
        """Make what is known by now ready for rows."""
        if self._fresh:
            self._nodes = nodes = np.concatenate([self._nodes, np.array(self._fresh, _NODE)])
            self._fresh = []
            self._kinds = np.ascontiguousarray(nodes["kind"])
            # The place of a node's sum among those of a place: a step and a role, or a step and two.
            alone = nodes["step"] * len(ROLES) + nodes["role"]
            self._codes = np.where(self._kinds == MESSAGE, alone * len(ROLES) + nodes["to"], alone)
        fresh = self.locations[len(self._apart) :]
        if fresh:
            self._apart = np.concatenate([self._apart, np.array([_apart(each) for each in fresh])])
        grown = len(self.locations), len(self.steps)
        if grown != self.bytes.shape[:2]:
            more = [(0, new - old) for new, old in zip(grown, self.bytes.shape[:2], strict=True)]
            self.bytes = np.pad(self.bytes, [*more, (0, 0), (0, 0)])
            self.busy_s = np.pad(self.busy_s, [*more, (0, 0)])

    def _numbers(self, node: Compute | Message | None) -> tuple[int, ...]:
        if node is None:
            return GATE, 0, 0, 0, 0, 0
        what = self.steps.setdefault(node.step, len(self.steps)), _PHASE[node.phase]
        if isinstance(node, Compute):
            return WORK, _ROLE[node.role], 0, *what, 0
        return MESSAGE, _ROLE[node.sender], _ROLE[node.receiver], *what, node.nbytes

    # -- rows ---------------------------------------------------------------------------------------------------------

    def write(self, rows: Rows) -> None:
        """Take in some rows."""
        self._settle()
        numbers, places = self._node_numbers(rows), rows["place"].astype(np.int64)
        kinds = self._kinds[numbers]
        self.last_s = max(self.last_s, float(rows["end_s"].max()))
        worked, sent = np.flatnonzero(kinds == WORK), np.flatnonzero(kinds == MESSAGE)
        self.messages_written += len(sent)
        _add(self.busy_s, places[worked], self._codes[numbers[worked]], rows["busy_s"][worked])
        arrived = sent[rows["cut"][sent] == 0]
        ends, nbytes = self._codes[numbers[arrived]], self._nodes["nbytes"][numbers[arrived]]
        apart = self._apart.reshape(-1)[places[arrived] * len(ROLES) ** 2 + ends % len(ROLES) ** 2]
        _add(self.bytes, places[arrived], ends, np.where(apart, nbytes, 0))
        self._keep(rows)

    def _keep(self, rows: Rows) -> None:
        held = sum(chunk.nbytes for chunk in self._chunks)
        if held + rows.nbytes > MOST_BYTES:
            if self._file is None:
                self._file = TemporaryFile(prefix="capcsim-")  # noqa: SIM115 (as long as the log)
                finalize(self, self._file.close)
            for chunk in self._chunks:
                self._file.write(chunk.tobytes())
            self._chunks.clear()
            self._starts.clear()
            self._filed = self._written
        self._chunks.append(rows)
        self._starts.append(self._written)
        self._written += len(rows)

    def _of(self, rows: Rows) -> NDArray[np.void]:
        """The node of each row."""
        found: NDArray[np.void] = self._nodes[self._node_numbers(rows)]
        return found

    def _node_numbers(self, rows: Rows) -> NDArray[np.int64]:
        found: NDArray[np.int64] = np.array(self._first, np.int64)[rows["template"]] + rows["node"]
        return found

    def chunks(self) -> Iterator[Rows]:
        """All rows, in the order in which they were written."""
        if self._file is not None:
            self._file.seek(0)
            size = (1 << 16) * LOG.itemsize
            while found := self._file.read(size):
                yield np.frombuffer(found, LOG)
            self._file.seek(0, 2)
        yield from self._chunks

    # -- sums ---------------------------------------------------------------------------------------------------------

    def works(self, role: Role) -> bool:
        """Whether a role has worked."""
        return bool(self.busy_s[:, :, _ROLE[role]].any())

    def sent_bytes(self, hosts: Sequence[str]) -> dict[str, int]:
        """What each host has sent to other machines."""
        found = dict.fromkeys(hosts, 0)
        by_role = self.bytes.sum(axis=(1, 3))
        for location, sent in zip(self.locations, by_role, strict=True):
            for role, host in location.hosts.items():
                if sent[_ROLE[role]]:
                    found[host] = found.get(host, 0) + int(sent[_ROLE[role]])
        return found

    def row(self, number: int) -> Any:
        """One row, by the number that it was written with."""
        if number < self._filed:
            assert self._file is not None, "so many are in it"
            self._file.seek(number * LOG.itemsize)
            found = np.frombuffer(self._file.read(LOG.itemsize), LOG)[0]
            self._file.seek(0, 2)
            return found
        place = bisect_right(self._starts, number) - 1
        return self._chunks[place][number - self._starts[place]]

    def node(self, row: Any) -> Any:
        """What a row is of: kind, role, receiver, step, phase, bytes."""
        self._settle()
        return self._nodes[self._first[int(row["template"])] + int(row["node"])]

    # -- tables -------------------------------------------------------------------------------------------------------

    def compute(self) -> Iterator[Columns]:
        """Columns of the table of work, chunk by chunk."""
        for rows, nodes in self._rows(WORK):
            yield {
                **self._common(rows, nodes),
                "host": self._names(rows, nodes["role"], "hosts"),
                "machine": self._names(rows, nodes["role"], "machines"),
                "core": np.where(rows["core"] < 0, 0, np.array(self._cores, np.int64)[rows["core"]]),
                "role": _named(ROLES, nodes["role"]),
                **{name: rows[name] for name in ("ready_s", "start_s", "end_s")},
            }

    def messages(self) -> Iterator[Columns]:
        """Columns of the table of messages, chunk by chunk; one that was cut has not arrived."""
        for rows, nodes in self._rows(MESSAGE):
            yield {
                **self._common(rows, nodes),
                "sender": self._names(rows, nodes["role"], "hosts"),
                "receiver": self._names(rows, nodes["to"], "hosts"),
                "network": self._apart[rows["place"], nodes["role"], nodes["to"]],
                "nbytes": nodes["nbytes"],
                "sent_s": rows["ready_s"],
                "received_s": rows["end_s"],
            }

    def _rows(self, kind: int) -> Iterator[tuple[Rows, NDArray[np.void]]]:
        self._settle()
        for rows in self.chunks():
            nodes = self._of(rows)
            chosen = nodes["kind"] == kind
            if chosen.any():
                yield rows[chosen], nodes[chosen]

    def _common(self, rows: Rows, nodes: NDArray[np.void]) -> Columns:
        queriers = np.array([location.querier for location in self.locations])
        return {
            "querier": queriers[rows["place"]],
            "batch": rows["batch"],
            "step": _named(list(self.steps), nodes["step"]),
            "phase": _named(PHASES, nodes["phase"]),
        }

    def _names(self, rows: Rows, roles: NDArray[np.int64], of: str) -> pa.DictionaryArray:
        """The name of a role's host or machine at each row's place."""
        names: dict[str, int] = {}
        numbers = np.array(
            [
                [names.setdefault(getattr(location, of).get(role, ""), len(names)) for role in ROLES]
                for location in self.locations
            ]
        )
        return pa.DictionaryArray.from_arrays(numbers[rows["place"], roles].astype(np.int32), list(names))


def _add(total: NDArray[Any], places: NDArray[np.int64], codes: NDArray[np.int64], values: NDArray[Any]) -> None:
    """Add values to the sums of places, each to the one that its code names."""
    flat = places * (total.size // max(len(total), 1)) + codes
    if total.size <= 8 * len(flat):
        total += np.bincount(flat, values, total.size).astype(total.dtype).reshape(total.shape)
        return
    counted, where = np.unique(flat, return_inverse=True)
    total.reshape(-1)[counted] += np.bincount(where, values, len(counted)).astype(total.dtype)


def _apart(location: Location) -> list[list[bool]]:
    machines = [location.machines.get(role) for role in ROLES]
    return [[a != b for b in machines] for a in machines]


def _named(names: Sequence[str], numbers: NDArray[np.int64]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(numbers.astype(np.int32), [str(name) for name in names])
