"""Two-party programs between processes: TLS 1.3 with certificates on both sides, and framed messages.

Each side knows the other's certificate beforehand and accepts no other. A frame is a header (magic, version,
sequence number, length) and a payload; anything unexpected, a silence longer than the timeout, or the end of the
connection is PeerFailed. TLS protects frames from outsiders; the sequence number tells a program that has gone out
of step. Payloads are limited, so that a peer cannot fill the memory.
"""

import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from capcsim.crypto.programs import Mark, Recv, Send, Steps
from capcsim.errors import InputError, PeerFailed

MAGIC, VERSION = b"CaPC", 1
HEADER = struct.Struct("!4sHQQ")
MOST_PAYLOAD_BYTES = 128 << 20
TIMEOUT_S = 60.0
"""How long a peer may be silent; each read or write has this time."""
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


class Channel:
    """One connection to one peer. `name` is the peer's, for errors."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        self._socket, self._name = connection, name
        self._sent = self._received = 0

    def send(self, payload: bytes) -> None:
        """Send one frame; raises PeerFailed, or InputError for a payload that no peer takes."""
        if len(payload) > MOST_PAYLOAD_BYTES:
            raise InputError(f"a message of {len(payload)} bytes; at most {MOST_PAYLOAD_BYTES} fit a frame: split it")
        header = HEADER.pack(MAGIC, VERSION, self._sent, len(payload))
        self._sent += 1
        self._guarded(partial(self._socket.sendall, header + payload))

    def receive(self) -> bytes:
        """Wait for the next frame; raises PeerFailed."""
        magic, version, number, length = HEADER.unpack(self._exactly(HEADER.size))
        if magic != MAGIC:
            raise PeerFailed(f"{self._name} sent something that is no frame of this protocol")
        if version != VERSION:
            raise PeerFailed(f"{self._name} speaks version {version}, not {VERSION}; install the same capcsim on both")
        if number != self._received:
            raise PeerFailed(f"{self._name} sent frame {number} instead of {self._received}: replayed or lost")
        if length > MOST_PAYLOAD_BYTES:
            raise PeerFailed(f"{self._name} announced {length} bytes; at most {MOST_PAYLOAD_BYTES} are taken")
        self._received += 1
        return self._exactly(length)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exactly(self, count: int) -> bytes:
        """So many bytes, or PeerFailed."""
        buffer, filled = bytearray(count), 0
        while filled < count:
            got: int = self._guarded(partial(self._socket.recv_into, memoryview(buffer)[filled:]))
            if got == 0:
                raise PeerFailed(f"{self._name} ended the connection in the middle of the protocol")
            filled += got
        return bytes(buffer)

    def _guarded(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except TimeoutError:
            raise PeerFailed(f"{self._name} was silent for {self._socket.gettimeout():g} s") from None
        except (ssl.SSLError, OSError) as error:
            raise PeerFailed(f"{self._name}: the connection failed ({error})") from None


def run_socket(program: Steps, channel: Channel) -> Any:
    """Run one role against a peer that runs the other; returns its output. Raises PeerFailed."""
    answer: bytes | None = None
    try:
        while True:
            request = program.send(answer)
            answer = None
            match request:
                case Send(payload):
                    channel.send(payload)
                case Recv():
                    answer = channel.receive()
                case Mark():
                    pass
    except StopIteration as end:
        return end.value


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
