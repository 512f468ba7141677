"""The simulated run in the Chrome trace format, which Perfetto and chrome://tracing open.

A run of many parties shows some of them, and a long one its beginning: the file says which, in "otherData".
"""

import json
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

from capcsim.files import replacing
from capcsim.record import Record
from capcsim.study.result import read_result

Event = dict[str, Any]
NETWORK = "network"
MOST_PARTIES = 12
"""Parties that are shown: the querying ones, up to this number, then as many that answer."""
MOST_EVENTS = 50_000
"""About 14 MB."""


def write_trace(record: Record) -> Path:
    """Write trace.json: a process for each machine with its cores as threads, one for the network. Raises HostError."""
    shown = _shown(record)
    work = _until_full(record.read_rows("compute", shown, "host"), "end_s", 1)
    sent = _until_full(record.read_rows("messages", shown, "sender", "receiver"), "received_s", 2)
    # Both tables are in the order in which things happened: one may have been cut earlier than the other.
    until_s = min(ends for _, ends in (work, sent))
    compute = [row for row in work[0] if row["end_s"] <= until_s]
    messages = [row for row in sent[0] if row["received_s"] <= until_s]
    names = dict.fromkeys(row["machine"] for row in compute)
    process = {name: number for number, name in enumerate([*names, NETWORK], start=1)}
    receivers = dict.fromkeys(row["receiver"] for row in messages)
    thread = {name: number for number, name in enumerate(receivers, start=1)}
    events = [_name("process_name", number, 0, name) for name, number in process.items()]
    events += [_name("thread_name", process[NETWORK], tid, f"to {name}") for name, tid in thread.items()]
    events += [_work(row, process[row["machine"]]) for row in compute]
    for identity, row in zip(count(), messages, strict=False):
        events += _message(row, process[NETWORK], thread[row["receiver"]], identity)
    told = {"parties": _told(shown, record), "until_s": "the end" if until_s == float("inf") else until_s}
    path = record.folder / "trace.json"
    with replacing(path) as fresh:
        fresh.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": told}))
    return path


def _shown(record: Record) -> list[str] | None:
    """The hosts that are shown; None for all."""
    found = read_result(record)
    if found.parties <= MOST_PARTIES:
        return None
    asking = [row.name for row in found.queriers][:MOST_PARTIES]
    answering = dict.fromkeys(host for host in record.manifest["sent_bytes"] if host not in asking)
    services = [host for host in answering if host in ("guardian", "dealer")]
    others = [host for host in answering if host not in services]
    return [*asking, *services, *others[: MOST_PARTIES - len(asking)]]


def _told(shown: list[str] | None, record: Record) -> str:
    return "all" if shown is None else f"{', '.join(shown)}, of {read_result(record).parties} parties"


def _until_full(rows: Iterator[Event], end: str, each: int) -> tuple[list[Event], float]:
    """As many rows as fit, with `each` events a row, and until when all that happened is among them."""
    found = list(islice(rows, MOST_EVENTS // 2 // each))
    full = next(rows, None) is not None
    return found, float(found[-1][end]) if full else float("inf")


def _name(kind: str, pid: int, tid: int, name: str) -> Event:
    return {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}


def _work(row: Event, pid: int) -> Event:
    return {
        "name": f"{row['step']} ({row['role']})",
        "cat": row["phase"],
        "ph": "X",
        "pid": pid,
        "tid": row["core"],
        "ts": 1e6 * row["start_s"],
        "dur": 1e6 * (row["end_s"] - row["start_s"]),
        "args": {key: row[key] for key in ("host", "querier", "batch", "ready_s")},
    }


def _message(row: Event, pid: int, tid: int, identity: int) -> list[Event]:
    """Messages overlap, so each is an asynchronous begin and end."""
    common = {"name": f"{row['step']}: {row['sender']}", "cat": "message", "pid": pid, "tid": tid, "id": identity}
    arguments = {key: row[key] for key in ("sender", "receiver", "nbytes", "querier", "batch")}
    return [
        {**common, "ph": "b", "ts": 1e6 * row["sent_s"], "args": arguments},
        {**common, "ph": "e", "ts": 1e6 * row["received_s"]},
    ]
