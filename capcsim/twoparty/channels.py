"""Two-party programs between processes: TLS 1.3 with certificates on both sides, and framed messages.

Each side knows the other's certificate beforehand and accepts no other. A frame is a header (magic, version,
sequence number, length) and a payload; anything unexpected, a silence longer than the timeout, or the end of the
connection is PeerFailed. TLS protects frames from outsiders; the sequence number tells a program that has gone out
of step. Payloads are limited, and so is what is taken in unread, so that a peer cannot fill the memory.
"""

import io
import select
import socket
import ssl
import struct
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from capcsim.backend import Phase, Progress
from capcsim.errors import InputError, PeerFailed
from capcsim.twoparty.programs import RoleDriver, RoleLog, Send, Steps

MAGIC, VERSION = b"CaPC", 1
HEADER = struct.Struct("!4sHQQ")
FIRST_BYTES = (16 << 10) - HEADER.size
"""What of a payload goes out together with the header: one TLS record, so that small messages are one packet."""
MOST_PAYLOAD_BYTES = 128 << 20
MOST_UNREAD_BYTES = 1 << 30
"""What is kept of a peer that sends while we send; more is refused."""
TIMEOUT_S = 60.0
"""How long nothing may move in either direction while we wait."""
HANDSHAKE_S = 10.0


@dataclass(frozen=True)
class Identity:
    """A participant's name, certificate and private key, the latter two as PEM."""

    name: str
    certificate: bytes
    key: bytes = field(repr=False)

    @classmethod
    def new(cls, name: str) -> Self:
        """A fresh Ed25519 key with a certificate signed by itself."""
        key = Ed25519PrivateKey.generate()
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, None)
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(name, certificate.public_bytes(serialization.Encoding.PEM), private)


class _Inbox:
    """Puts a peer's bytes together to payloads; each byte is written once, where it stays."""

    def __init__(self, name: str) -> None:
        self.whole: deque[bytes] = deque()
        self.room = memoryview(bytearray(HEADER.size))
        self._name = name
        self._header: memoryview | None = self.room
        self._payload = io.BytesIO()
        self._received = self._unread_bytes = 0

    def filled(self, count: int) -> None:
        """So many more bytes are in `room`; raises PeerFailed for a frame that cannot be taken."""
        self.room = self.room[count:]
        if not self.room and self._header is not None:
            self._begin(self._header)
        if not self.room and self._header is None:
            self._header = self.room = memoryview(bytearray(HEADER.size))
            self.whole.append(self._payload.getvalue())
            self._payload = io.BytesIO()

    def take(self) -> bytes:
        """The next whole payload."""
        payload = self.whole.popleft()
        self._unread_bytes -= len(payload)
        return payload

    def _begin(self, header: memoryview) -> None:
        magic, version, number, length = HEADER.unpack(header)
        if magic != MAGIC:
            raise PeerFailed(f"{self._name} sent something that is no frame of this protocol")
        if version != VERSION:
            raise PeerFailed(f"{self._name} speaks version {version}, not {VERSION}; install the same capcsim on both")
        if number != self._received:
            raise PeerFailed(f"{self._name} sent frame {number} instead of {self._received}: replayed or lost")
        if length > MOST_PAYLOAD_BYTES:
            raise PeerFailed(f"{self._name} announced {length} bytes; at most {MOST_PAYLOAD_BYTES} are taken")
        if self._unread_bytes + length > MOST_UNREAD_BYTES:
            raise PeerFailed(f"{self._name} sent more than {MOST_UNREAD_BYTES} bytes before any of them was read")
        self._received += 1
        self._unread_bytes += length
        self._header = None
        # Nothing is copied: the room is the very bytes object that getvalue() hands out, once the view is gone.
        self._payload = io.BytesIO(bytes(length))
        self.room = self._payload.getbuffer()


class Channel:
    """One connection to one peer, over TLS or between processes of our own. `name` is the peer's, for errors.

    The connection's timeout is how long the peer may be silent. While a payload does not leave, what the peer sends
    is taken in, so that both may send much at once. Not for several threads. `failed` says that the connection,
    not the program, is why a PeerFailed came.
    """

    def __init__(self, connection: socket.socket, name: str) -> None:
        self.failed = False
        self._socket, self._name = connection, name
        self._timeout_s = connection.gettimeout()
        self._inbox = _Inbox(name)
        self._sent = 0
        self._ended = False
        self._waits_for = 0
        connection.setblocking(False)
        self._poll = select.poll()
        self._poll.register(connection, 0)

    def send(self, payload: bytes) -> None:
        """Send one frame; raises PeerFailed, or InputError for a payload that no peer takes."""
        if len(payload) > MOST_PAYLOAD_BYTES:
            raise InputError(f"a message of {len(payload)} bytes; at most {MOST_PAYLOAD_BYTES} fit a frame: split it")
        header = HEADER.pack(MAGIC, VERSION, self._sent, len(payload))
        self._sent += 1
        whole = memoryview(payload)
        with self._guarded():
            self._push(header + whole[:FIRST_BYTES])
            self._push(whole[FIRST_BYTES:])

    def receive(self) -> bytes:
        """Wait for the next frame; raises PeerFailed."""
        with self._guarded():
            while not self._inbox.whole:
                self._waits_for = 0
                if self._ended:
                    raise PeerFailed(f"{self._name} ended the connection in the middle of the protocol")
                if not self._take_in():
                    self._wait()
        return self._inbox.take()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _push(self, rest: bytes | memoryview) -> None:
        """Send it all, and take in what comes meanwhile."""
        while rest:
            self._waits_for = 0
            if sent := self._attempt(self._socket.send, rest, select.POLLOUT):
                rest = memoryview(rest)[sent:]
            elif not self._take_in():
                self._wait()

    def _take_in(self) -> bool:
        """One read of what is there already; says whether there was something, the end included."""
        if self._ended:
            return False
        count = self._attempt(self._socket.recv_into, self._inbox.room, select.POLLIN)
        if count is None:
            return False
        self._ended = count == 0
        self._inbox.filled(count)
        return True

    def _attempt(self, action: Callable[[Any], int], data: bytes | memoryview, event: int) -> int | None:
        """How many bytes moved; None if the connection is not ready, and then what to wait for is noted."""
        try:
            return action(data)
        except ssl.SSLWantReadError:  # TLS may have to read before it can write, and the reverse
            self._waits_for |= select.POLLIN
        except ssl.SSLWantWriteError:
            self._waits_for |= select.POLLOUT
        except BlockingIOError:
            self._waits_for |= event
        return None

    def _wait(self) -> None:
        """Until the connection is ready for what was attempted; raises TimeoutError."""
        self._poll.modify(self._socket, self._waits_for)
        if not self._poll.poll(None if self._timeout_s is None else self._timeout_s * 1000):
            raise TimeoutError

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever goes wrong below is the peer's failure, by name."""
        try:
            yield
        except PeerFailed:
            self.failed = True
            raise
        except TimeoutError:
            self.failed = True
            raise PeerFailed(f"{self._name} was silent for {self._timeout_s:g} s") from None
        except OSError as error:  # ssl.SSLError is one
            self.failed = True
            raise PeerFailed(f"{self._name}: the connection failed ({error})") from None


def run_socket(
    program: Steps,
    channel: Channel,
    log: RoleLog | None = None,
    progress: Progress | None = None,
    *,
    phase: Phase = Phase.ONLINE,
) -> Any:
    """Run one role against a peer that runs the other; returns its output. Raises PeerFailed.

    What the role does is appended to `log`, which `programs.merge` makes a transcript of together with the other
    role's; `phase` is the label that it starts with. `progress` gets the role's own share of work done.
    """
    driver = RoleDriver(program, phase, log, progress)
    while (request := driver.resume()) is not None:
        if isinstance(request, Send):
            channel.send(request.payload)
        else:
            driver.take(channel.receive())
    return driver.output


def accept(listener: socket.socket, own: Identity, peer: bytes, name: str, timeout_s: float = TIMEOUT_S) -> Channel:
    """Wait for the peer with this certificate; others are turned away. Raises PeerFailed when the time is up."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, own, peer)
    ends_s, why = time.monotonic() + timeout_s, "nobody came"
    while (left_s := ends_s - time.monotonic()) > 0:
        listener.settimeout(left_s)
        try:
            plain = listener.accept()[0]
        except OSError as error:
            why = str(error) if why == "nobody came" else why
            continue
        try:
            return _secured(plain, context, peer, name, timeout_s, handshake_s=min(HANDSHAKE_S, left_s), server=True)
        except PeerFailed as error:
            why = str(error)
    raise PeerFailed(f"{name} did not connect within {timeout_s:g} s ({why})")


def connect(address: tuple[str, int], own: Identity, peer: bytes, name: str, timeout_s: float = TIMEOUT_S) -> Channel:
    """Connect to the peer with this certificate; raises PeerFailed."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, own, peer)
    try:
        plain = socket.create_connection(address, timeout_s)
    except OSError as error:
        raise PeerFailed(f"{name} cannot be reached ({error})") from None
    return _secured(plain, context, peer, name, timeout_s, handshake_s=timeout_s, server=False)


def _secured(
    plain: socket.socket,
    context: ssl.SSLContext,
    peer: bytes,
    name: str,
    timeout_s: float,
    *,
    handshake_s: float,
    server: bool,
) -> Channel:
    """TLS on a connection, with the very certificate that was expected at the other end."""
    try:
        plain.settimeout(handshake_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        secure = context.wrap_socket(plain, server_side=server)
    except OSError as error:
        plain.close()
        raise PeerFailed(f"{name} did not prove who it is ({error})") from None
    # A trusted certificate could have signed another one: only itself will do.
    if secure.getpeercert(binary_form=True) != ssl.PEM_cert_to_DER_cert(peer.decode()):
        secure.close()
        raise PeerFailed(f"{name} did not prove who it is (another certificate)")
    secure.settimeout(timeout_s)
    return Channel(secure, name)


def _context(kind: int, own: Identity, peer: bytes) -> ssl.SSLContext:
    """TLS 1.3 only; the peer's certificate, and nothing else, is trusted."""
    context = ssl.SSLContext(kind)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the certificate itself is pinned
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=peer.decode())
    # The standard library takes a key from a file only.
    with tempfile.TemporaryDirectory() as folder:
        pem = Path(folder) / "identity.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(own.certificate + own.key)
        context.load_cert_chain(pem)
    return context
