"""The simulated run in the Chrome trace format, which Perfetto and chrome://tracing open."""

import json
from itertools import count
from pathlib import Path
from typing import Any

from capcsim.files import replacing
from capcsim.record import Record

Event = dict[str, Any]
NETWORK = "network"


def write_trace(record: Record) -> Path:
    """Write trace.json: a process for each machine with its cores as threads, one for the network. Raises HostError."""
    compute: list[Event] = record.read_table("compute").to_pylist()
    messages: list[Event] = record.read_table("messages").to_pylist()
    names = dict.fromkeys(row["machine"] for row in compute)
    process = {name: number for number, name in enumerate([*names, NETWORK], start=1)}
    receivers = dict.fromkeys(row["receiver"] for row in messages)
    thread = {name: number for number, name in enumerate(receivers, start=1)}
    events = [_name("process_name", number, 0, name) for name, number in process.items()]
    events += [_name("thread_name", process[NETWORK], tid, f"to {name}") for name, tid in thread.items()]
    events += [_work(row, process[row["machine"]]) for row in compute]
    for identity, row in zip(count(), messages, strict=False):
        events += _message(row, process[NETWORK], thread[row["receiver"]], identity)
    path = record.folder / "trace.json"
    with replacing(path) as fresh:
        fresh.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}))
    return path


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
