"""One party of a pair as a process: python party_process.py ROLE FOLDER. Not a test; `test_parties.py` starts it."""

import gc
import socket
import sys
import time
from pathlib import Path

import numpy as np

from capcsim.twoparty.channels import Identity, accept, connect, run_socket


def identity(folder: Path, name: str) -> Identity:
    return Identity(name, (folder / f"{name}.crt").read_bytes(), (folder / f"{name}.key").read_bytes())


def query(folder: Path) -> None:
    from capcsim_hybrid.parties import querying_party

    port = int((folder / "port").read_text())
    peer = (folder / "answerer.crt").read_bytes()
    x = np.load(folder / "x.npy")
    with connect(("127.0.0.1", port), identity(folder, "querier"), peer, "answering party") as channel:
        started_s = time.perf_counter()
        logits, votes = run_socket(querying_party(x), channel)
        elapsed_s = time.perf_counter() - started_s
    np.savez(folder / "querier.npz", logits=logits, votes=votes, elapsed_s=elapsed_s)
    assert "torch" not in sys.modules
    assert "sklearn" not in sys.modules
    assert not held("Network", "HybridModel", "EncodedWeights", "CotReceiver")


def answer(folder: Path) -> None:
    from capcsim.learning.models import build_model
    from capcsim_hybrid import linear
    from capcsim_hybrid.parties import answering_party

    model = build_model("cryptonet-relu", (1, 28, 28), 10, (), seed=5)
    made = []
    linear.SecretKeys.__init__ = lambda self, *_: made.append(self)  # type: ignore[method-assign]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        (folder / "port.new").write_text(str(listener.getsockname()[1]))
        (folder / "port.new").rename(folder / "port")
        peer = (folder / "querier.crt").read_bytes()
        channel = accept(listener, identity(folder, "answerer"), peer, "querying party")
    (folder / "connected").touch()
    with channel:
        logits, votes = run_socket(answering_party(model), channel)
    np.savez(folder / "answerer.npz", logits=logits, votes=votes)
    assert not made
    assert not held("SecretKeys", "CotSender", "GarblerSession")


def held(*names: str) -> list[str]:
    """Objects of these classes that live in this process."""
    gc.collect()
    return [type(thing).__name__ for thing in gc.get_objects() if type(thing).__name__ in names]


if __name__ == "__main__":
    {"query": query, "answer": answer}[sys.argv[1]](Path(sys.argv[2]))
