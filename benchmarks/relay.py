"""A link with latency between processes of one machine, without root: a relay that holds back what they send.

Run by `Relay`, in a process of its own, which imports the standard library only. TCP connections to one of its fronts
go on to a port behind it; every chunk leaves `latency_s` after it came, in each direction. Its bandwidth is what the
machine gives.
"""

import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from queue import SimpleQueue
from typing import Any

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes that came in one go: when, on which connection, from whom to whom."""

    received_s: float
    connection: int
    sender: int
    receiver: int
    data: bytes


class Control:
    """Tells a relay what to do, from any process that knows its `address`."""

    def __init__(self, address: str) -> None:
        self._pipe = Client(address, "AF_UNIX")

    def front(self, port: int, caller: int, owner: int) -> int:
        """Open a front for the port of `owner` on this machine, for `caller` to connect to; returns the front's."""
        return int(self._ask("front", port, caller, owner))

    def hold(self, latency_s: float) -> None:
        """Hold back what comes from now on for so long."""
        self._ask("hold", latency_s)

    def capture(self) -> None:
        """Keep from now on what passes."""
        self._ask("capture")

    def captured(self) -> list[Chunk]:
        """What passed since `capture`; keeps no more."""
        return [Chunk(*row) for row in self._ask("captured")]

    def _ask(self, *words: Any) -> Any:
        self._pipe.send(words)
        return self._pipe.recv()


@contextlib.contextmanager
def relay(latency_s: float) -> Iterator[str]:
    """Run a relay; yields its address for `Control`."""
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        address = str(Path(folder) / "control")
        process = subprocess.Popen([sys.executable, __file__, str(latency_s), address], stdout=subprocess.PIPE)
        try:
            assert process.stdout
            process.stdout.readline()
            yield address
        finally:
            process.kill()
            process.communicate()


class _Relay:
    """All connections that pass, each direction with a thread that reads and one that writes."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s, self._connections = latency_s, 0
        self._kept: list[tuple[float, int, int, int, bytes]] | None = None

    def serve(self, pipe: Connection) -> None:
        """Do what one Control asks."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                what, *words = pipe.recv()
                pipe.send(getattr(self, f"_do_{what}")(*words))

    def _do_front(self, port: int, caller: int, owner: int) -> int:
        # Every address of this machine: Linux and macOS take 0.0.0.0 as a peer's address for "here".
        front = socket.create_server(("0.0.0.0", 0))
        threading.Thread(target=self._accept, args=(front, port, caller, owner), daemon=True).start()
        return int(front.getsockname()[1])

    def _do_hold(self, latency_s: float) -> None:
        self._latency_s = latency_s

    def _do_capture(self) -> None:
        self._kept = []

    def _do_captured(self) -> list[tuple[float, int, int, int, bytes]]:
        kept, self._kept = self._kept or [], None
        return kept

    def _accept(self, front: socket.socket, port: int, caller: int, owner: int) -> None:
        while True:
            near, _ = front.accept()
            far = socket.create_connection(("127.0.0.1", port))
            self._connections += 1
            for ends in ((near, far, caller, owner), (far, near, owner, caller)):
                ends[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._read, args=(self._connections, *ends), daemon=True).start()

    def _read(self, connection: int, source: socket.socket, sink: socket.socket, sender: int, receiver: int) -> None:
        held: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
        threading.Thread(target=self._write, args=(held, sink), daemon=True).start()
        data = b"first"
        while data:
            try:
                data = source.recv(CHUNK_BYTES)
            except OSError:
                data = b""
            now_s = time.monotonic()
            held.put((now_s + self._latency_s, data))
            if self._kept is not None and data:
                self._kept.append((now_s, connection, sender, receiver, data))

    def _write(self, held: "SimpleQueue[tuple[float, bytes]]", sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                due_s, data = held.get()
                time.sleep(max(0.0, due_s - time.monotonic()))
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)


def main() -> None:
    latency_s, address = sys.argv[1:]
    served = _Relay(float(latency_s))
    with Listener(address, "AF_UNIX") as listener:
        print("ready", flush=True)
        while True:
            threading.Thread(target=served.serve, args=(listener.accept(),), daemon=True).start()


if __name__ == "__main__":
    main()
