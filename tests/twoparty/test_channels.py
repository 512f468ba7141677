"""Two-party programs between real processes and over real sockets, and what happens when the peer misbehaves."""

import contextlib
import multiprocessing
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from capcsim.backend import VOTE_RING_BITS, Phase, Role, Step, Transcript
from capcsim.crypto.shares import reconstruct, share
from capcsim.errors import InputError, PeerFailed
from capcsim.twoparty import channels
from capcsim.twoparty.channels import HEADER, MAGIC, VERSION, Channel, Identity, accept, connect, run_socket
from capcsim.twoparty.programs import Mark, Recv, RoleLog, Send, Steps, merge, run_local
from capcsim.twoparty.voting import argmax_programs, set_up_programs

QUERIER, ANSWERER, STRANGER = Identity.new("querier"), Identity.new("answerer"), Identity.new("stranger")
LOGITS = np.array([[3, 8, -1], [7, 7, 2]])


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def in_background(action: Callable[[], Any]) -> Callable[[], Any]:
    """Run in a thread; the answer waits for the result, or raises what it raised."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append((True, action()))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def wait() -> Any:
        thread.join(30)
        assert outcome, "the other side hangs"
        worked, value = outcome[0]
        if not worked:
            raise value
        return value

    return wait


def joined(listener: socket.socket, timeout_s: float = 10.0) -> tuple[Channel, Channel]:
    """Both ends of a connection."""
    other = in_background(lambda: connect(listener.getsockname(), ANSWERER, QUERIER.certificate, "querier", timeout_s))
    mine = accept(listener, QUERIER, ANSWERER.certificate, "answerer", timeout_s)
    return mine, other()


def asks() -> Steps:
    yield Send(b"question")
    return (yield Recv())


def answers() -> Steps:
    question = yield Recv()
    yield Send(question[::-1])


def test_a_program_runs_over_a_socket(listener: socket.socket) -> None:
    mine, other = joined(listener)
    with mine, other:
        done = in_background(lambda: run_socket(answers(), other))
        assert run_socket(asks(), mine) == b"noitseuq"
        done()


def answering_process(address: tuple[str, int], own: Identity, peer: bytes, own_share: Any, result: Any) -> None:
    """Holds its own identity and share, and the querying party's certificate; nothing else."""
    set_up, argmax = set_up_programs()[1], argmax_programs()[1]
    with connect(address, own, peer, "querier", 60) as channel:
        session = run_socket(set_up(), channel)
        result.send(run_socket(argmax(session, own_share, 37), channel))


def test_the_argmax_runs_between_two_processes(listener: socket.socket) -> None:
    shares = share(LOGITS, 37)
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=answering_process,
        args=(listener.getsockname(), ANSWERER, QUERIER.certificate, shares[1], theirs),
    )
    process.start()
    with accept(listener, QUERIER, ANSWERER.certificate, "answerer", 60) as channel:
        session = run_socket(set_up_programs()[0](), channel)
        mine = run_socket(argmax_programs()[0](session, shares[0], 37), channel)
    votes = reconstruct(np.stack([mine, ours.recv()]), VOTE_RING_BITS)
    process.join(30)
    assert process.exitcode == 0
    assert votes.tolist() == [[0, 1, 0], [1, 0, 0]]


def dying_process(address: tuple[str, int], own: Identity, peer: bytes) -> None:
    channel = connect(address, own, peer, "querier", 60)
    channel.send(b"hello")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_peer_is_named_at_once(listener: socket.socket) -> None:
    arguments = (listener.getsockname(), ANSWERER, QUERIER.certificate)
    process = multiprocessing.get_context("spawn").Process(target=dying_process, args=arguments)
    process.start()
    with accept(listener, QUERIER, ANSWERER.certificate, "answerer", 60) as channel:
        assert channel.receive() == b"hello"
        started_s = time.monotonic()
        with pytest.raises(PeerFailed, match="answerer"):
            channel.receive()
        assert time.monotonic() - started_s < 10
    process.join(30)


def test_a_silent_peer_times_out(listener: socket.socket) -> None:
    mine, other = joined(listener, timeout_s=0.3)
    with mine, other, pytest.raises(PeerFailed, match=r"answerer was silent for 0\.3 s"):
        mine.receive()


def test_a_stranger_is_turned_away(listener: socket.socket) -> None:
    def knock() -> None:
        with connect(listener.getsockname(), STRANGER, QUERIER.certificate, "querier", 5) as channel:
            channel.receive()

    stranger = in_background(knock)
    with pytest.raises(PeerFailed, match="answerer did not prove who it is"):
        accept(listener, QUERIER, ANSWERER.certificate, "answerer", 5)
    with pytest.raises(PeerFailed, match="querier"):
        stranger()


def test_the_right_peer_is_let_in_after_a_stranger(listener: socket.socket) -> None:
    address = listener.getsockname()
    host = in_background(lambda: accept(listener, QUERIER, ANSWERER.certificate, "answerer", 20))
    with pytest.raises(PeerFailed), connect(address, STRANGER, QUERIER.certificate, "querier", 5) as channel:
        channel.receive()
    with socket.create_connection(address) as scanner:
        scanner.sendall(b"GET / HTTP/1.0\r\n\r\n")
    with connect(address, ANSWERER, QUERIER.certificate, "querier", 5) as theirs, host() as mine:
        theirs.send(b"it is me")
        assert mine.receive() == b"it is me"


def signed_by(issuer: Identity, name: str) -> Identity:
    """A certificate of another key, signed with the issuer's."""
    key = Ed25519PrivateKey.generate()
    parent = x509.load_pem_x509_certificate(issuer.certificate)
    signer = serialization.load_pem_private_key(issuer.key, None)
    assert isinstance(signer, Ed25519PrivateKey)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(parent.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(parent.not_valid_before_utc)
        .not_valid_after(parent.not_valid_after_utc)
        .sign(signer, None)
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Identity(name, certificate.public_bytes(pem), private)


def test_a_certificate_signed_by_the_expected_one_will_not_do(listener: socket.socket) -> None:
    impostor = signed_by(ANSWERER, "answerer")

    def knock() -> None:
        with connect(listener.getsockname(), impostor, QUERIER.certificate, "querier", 3) as channel:
            channel.receive()

    knocking = in_background(knock)
    with pytest.raises(PeerFailed, match="did not prove who it is"):
        accept(listener, QUERIER, ANSWERER.certificate, "answerer", 3)
    with pytest.raises(PeerFailed):
        knocking()


def test_private_keys_do_not_show_in_messages() -> None:
    assert "PRIVATE" not in repr(QUERIER)


def test_a_false_server_is_noticed(listener: socket.socket) -> None:
    false = in_background(lambda: accept(listener, STRANGER, ANSWERER.certificate, "answerer", 5))
    with pytest.raises(PeerFailed, match="querier did not prove who it is"):
        connect(listener.getsockname(), ANSWERER, QUERIER.certificate, "querier", 5)
    with pytest.raises(PeerFailed):
        false()


def test_nobody_listening_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    with pytest.raises(PeerFailed, match="querier cannot be reached"):
        connect(address, ANSWERER, QUERIER.certificate, "querier", 5)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (HEADER.pack(b"HTTP", VERSION, 0, 1) + b"x", "no frame of this protocol"),
        (HEADER.pack(MAGIC, VERSION + 1, 0, 1) + b"x", f"speaks version {VERSION + 1}, not {VERSION}"),
        (HEADER.pack(MAGIC, VERSION, 1, 1) + b"x", "sent frame 1 instead of 0: replayed or lost"),
        (HEADER.pack(MAGIC, VERSION, 0, 1 << 40), "announced 1099511627776 bytes; at most"),
        (HEADER.pack(MAGIC, VERSION, 0, 100) + b"only this", "ended the connection in the middle"),
        (b"Ca", "ended the connection in the middle"),
    ],
)
def test_a_bad_frame_is_refused(listener: socket.socket, frame: bytes, says: str) -> None:
    mine, other = joined(listener)
    with mine, other:
        other._socket.sendall(frame)
        other.close()
        with pytest.raises(PeerFailed, match=says):
            mine.receive()


def test_a_replayed_frame_is_refused(listener: socket.socket) -> None:
    mine, other = joined(listener)
    with mine, other:
        frame = HEADER.pack(MAGIC, VERSION, 0, 5) + b"share"
        other._socket.sendall(frame + frame)
        assert mine.receive() == b"share"
        with pytest.raises(PeerFailed, match="sent frame 0 instead of 1"):
            mine.receive()


def test_a_tampered_record_is_refused(listener: socket.socket) -> None:
    """Flip one bit on the wire, below TLS."""
    wires: list[socket.socket] = []

    def relay() -> None:
        inner, _ = listener.accept()
        outer = socket.create_connection(hidden.getsockname())
        wires.extend([inner, outer])
        back = threading.Thread(target=pump, args=(outer, inner, lambda data: data), daemon=True)
        back.start()
        pump(inner, outer, damage)

    def pump(source: socket.socket, target: socket.socket, change: Callable[[bytes], bytes]) -> None:
        with contextlib.suppress(OSError):  # the ends close it
            while data := source.recv(1 << 16):
                target.sendall(change(data))

    armed = threading.Event()

    def damage(data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if armed.is_set() else data

    with socket.create_server(("127.0.0.1", 0)) as hidden:
        in_background(relay)
        other = in_background(lambda: connect(listener.getsockname(), ANSWERER, QUERIER.certificate, "querier", 10))
        with accept(hidden, QUERIER, ANSWERER.certificate, "answerer", 10) as mine, other() as theirs:
            theirs.send(b"clean")
            assert mine.receive() == b"clean"
            armed.set()
            theirs.send(b"damaged")
            with pytest.raises(PeerFailed, match="answerer: the connection failed"):
                mine.receive()
    for wire in wires:
        wire.close()


def test_an_older_tls_is_refused(listener: socket.socket) -> None:
    host = in_background(lambda: accept(listener, QUERIER, ANSWERER.certificate, "answerer", 2))
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(listener.getsockname()) as plain,
        pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"),
    ):
        old.wrap_socket(plain)
    with pytest.raises(PeerFailed, match="did not connect within 2 s"):
        host()


def test_a_message_too_large_for_a_frame_is_refused_before_it_is_sent(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "MOST_PAYLOAD_BYTES", 10)
    mine, other = joined(listener)
    with mine, other, pytest.raises(InputError, match="a message of 11 bytes; at most 10 fit a frame"):
        mine.send(bytes(11))


def plain(timeout_s: float = 10.0) -> tuple[Channel, Channel]:
    """Both ends of a connection without TLS, as between processes of our own."""
    ends = socket.socketpair()
    for end in ends:
        end.settimeout(timeout_s)
    return Channel(ends[0], "answerer"), Channel(ends[1], "querier")


@pytest.fixture(params=["plain", "TLS"])
def pair(request: pytest.FixtureRequest, listener: socket.socket) -> Iterator[tuple[Channel, Channel]]:
    ends = plain() if request.param == "plain" else joined(listener)
    with ends[0], ends[1]:
        yield ends


def test_payloads_of_any_size_arrive_in_order(pair: tuple[Channel, Channel]) -> None:
    sizes = [0, 1, channels.FIRST_BYTES - 1, channels.FIRST_BYTES, channels.FIRST_BYTES + 1, 1 << 20, 0]
    payloads = [bytes([number]) * size for number, size in enumerate(sizes)]
    mine, other = pair

    def answer() -> list[bytes]:
        return [other.receive() for _ in sizes]

    done = in_background(answer)
    for payload in payloads:
        mine.send(payload)
    assert done() == payloads


def test_both_may_send_much_at_once(pair: tuple[Channel, Channel]) -> None:
    def talk(channel: Channel, letter: bytes) -> list[bytes]:
        for _ in range(3):
            channel.send(letter * (40 << 20))
        channel.send(letter)
        return [channel.receive() for _ in range(4)]

    done = in_background(lambda: talk(pair[1], b"b"))
    assert talk(pair[0], b"a") == [b"b" * (40 << 20)] * 3 + [b"b"]
    assert done() == [b"a" * (40 << 20)] * 3 + [b"a"]


def test_what_came_before_the_end_is_still_read() -> None:
    """The end is noticed while sending; what was taken in then is kept."""
    mine, other = plain()

    def leave() -> None:
        other.send(b"a" * (5 << 20))
        other.send(b"b")
        other._socket.shutdown(socket.SHUT_WR)
        assert len(other.receive()) == 20 << 20

    with mine, other:
        done = in_background(leave)
        mine.send(bytes(20 << 20))
        # Where all left before the other side had sent its own, the rest is taken in here.
        assert (mine.receive(), mine.receive()) == (b"a" * (5 << 20), b"b")
        done()
        assert not mine.failed
        with pytest.raises(PeerFailed, match="answerer ended the connection"):
            mine.receive()
        assert mine.failed


def test_a_slow_peer_is_not_a_silent_one() -> None:
    mine, other = plain(timeout_s=0.5)

    def sip() -> int:
        taken = 0
        while taken < 1 << 20:
            time.sleep(0.1)
            with contextlib.suppress(BlockingIOError):
                taken += len(other._socket.recv(1 << 17))
        return taken

    with mine, other:
        done = in_background(sip)
        started_s = time.monotonic()
        mine.send(bytes(1 << 20))
        assert time.monotonic() - started_s > 0.5
        assert done() >= 1 << 20
        with pytest.raises(PeerFailed, match=r"answerer was silent for 0\.5 s"):
            mine.send(bytes(3 << 19))


def test_a_peer_that_sends_without_end_while_we_send_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "MOST_UNREAD_BYTES", 1 << 20)
    mine, other = plain()

    def flood() -> None:
        other._socket.setblocking(True)
        with contextlib.suppress(OSError):
            for number in range(100):
                other._socket.sendall(HEADER.pack(MAGIC, VERSION, number, 1 << 17) + bytes(1 << 17))

    with other:
        done = in_background(flood)
        with mine, pytest.raises(PeerFailed, match="answerer sent more than 1048576 bytes before any of them"):
            mine.send(bytes(100 << 20))
        done()


def test_a_dead_peer_is_noticed_while_sending() -> None:
    mine, other = plain()
    other.close()
    with mine, pytest.raises(PeerFailed, match="answerer: the connection failed"):
        mine.send(bytes(1 << 20))


def shape(transcript: Transcript) -> list[Any]:
    return [(type(node), node.phase, node.scope, node.after, getattr(node, "nbytes", 0)) for node in transcript]


def test_two_logs_over_a_socket_make_the_same_transcript(listener: socket.socket) -> None:
    def marked() -> Steps:
        yield Mark(Phase.OFFLINE, done=0.5)
        yield Send(b"early")
        yield Mark(Phase.ONLINE, done=1.0)
        return (yield from asks())

    def marks() -> Steps:
        yield Recv()
        yield from answers()

    roles, shares_done = (Role.QUERIER, Role.ANSWERER), list[float]()
    mine, other = joined(listener)
    logs: tuple[RoleLog, RoleLog] = ([], [])
    with mine, other:
        done = in_background(lambda: run_socket(marks(), other, logs[1], phase=Phase.SETUP))
        assert run_socket(marked(), mine, logs[0], shares_done.append, phase=Phase.SETUP) == b"noitseuq"
        done()
    _, expected = run_local(roles, (marked(), marks()), step=Step.INFER, phase=Phase.SETUP)
    assert shape(merge(roles, logs, Step.INFER)) == shape(expected)
    assert shares_done == [0.5, 1.0]
