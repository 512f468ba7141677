"""What CrypTen 0.4.1 needs to be told, mended or kept from, each in one place.

Only a party's process imports CrypTen, through `crypten` here. Not mended, because it is CrypTen's own: shares and
masks are outputs of a Mersenne Twister, and a truncation wraps with a probability of about |x| 2^-32
(`capcsim_crypten.deviations` counts these).
"""

import os
import sys
import warnings
from functools import cache
from importlib import import_module
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

PRECISION_BITS = 16
"""Fraction bits of CrypTen's encoding."""
WORD_BITS = 64
"""CrypTen's ring is Z_2^64."""
PARTIES = 2
DEALER_RANK = 2
"""CrypTen numbers a dealer after the parties."""

Size: TypeAlias = tuple[int, int]
Provider: TypeAlias = Literal["first-party", "third-party"]
PROVIDERS: dict[Provider, str] = {"first-party": "TFP", "third-party": "TTP"}
MOVED_IMPORT = "torch.onnx._internal.registration"
NEW_IMPORT = "torch.onnx._internal.torchscript_exporter.registration"
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


@cache
def crypten() -> Any:
    """The library. It imports a module of torch that has moved, and warns of what it deprecates itself."""
    sys.modules.setdefault(MOVED_IMPORT, import_module(NEW_IMPORT))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("crypten")


def join(rank: int, rendezvous: str, provider: Provider) -> Any:
    """Make this process the party of this rank; returns its communicator, when all the others are there.

    CrypTen is told by environment variables, and leaves them there: never call this in a process that is not a
    party's own. `rendezvous` is a URL that PyTorch knows how to meet at, file://PATH say.
    """
    import torch

    torch.set_num_threads(1)
    # gloo would pass tensors through shared memory, past every connection, if it knew that both run on one machine.
    os.environ.pop("LOCAL_WORLD_SIZE", None)
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(PARTIES),
        RENDEZVOUS=rendezvous,
        DISTRIBUTED_BACKEND="gloo",
        GLOO_SOCKET_IFNAME=LOOPBACK,
    )
    library = crypten()
    library.cfg.mpc.provider = PROVIDERS[provider]
    library.cfg.communicator.verbose = True
    # 22 rounds for the argmax of ten classes, where the default takes 57.
    library.cfg.functions.max_method = "pairwise"
    library.CrypTensor.set_grad_enabled(False)
    library.init()
    return library.communicator.get()


def encoded(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Real numbers rounded to the nearest multiples of 2^-16, exactly so below 2^8.

    CrypTen's encoder cuts off what is left over; given an array of numpy, it cuts to whole numbers.
    """
    scale = float(1 << PRECISION_BITS)
    return (np.rint(values * scale) / scale).astype(np.float32)


def shared(values: NDArray[np.float64], source: int) -> Any:
    """A CrypTensor of real numbers that the party of rank `source` has; the other's only tell their shape."""
    import torch

    return crypten().cryptensor(torch.from_numpy(encoded(values)), src=source)


def decode(words: NDArray[np.int64]) -> NDArray[np.float64]:
    """The real numbers that opened words of CrypTen's encoding stand for.

    CrypTen's own decoder is off by -1 for some negative ones: it divides them by 2^16 - 1.
    """
    return words.astype(np.float64) / float(1 << PRECISION_BITS)


def fresh_seeds() -> None:
    """New seeds for the pseudo-random shares of zero of the two parties, from the operating system."""
    crypten()._setup_prng()


def take_dealers_seed() -> None:
    """A party's part of `Dealer.seeds`."""
    client = crypten().mpc.provider.ttp_provider.TTPClient
    client.uninit()
    client._init()


class Dealer:
    """CrypTen's trusted third party, whose own loop neither ends after a step nor tells what it does."""

    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator
        # Its constructor would start that loop.
        kind = crypten().mpc.provider.TTPServer
        self._server = kind.__new__(kind)
        self._server.ttp_group, self._server.comm_group = communicator.ttp_group, communicator.ttp_comm_group
        self._server.device = "cpu"

    def seeds(self) -> None:
        """Give each party a seed: what both can make out of theirs needs no message."""
        self._server._setup_generators()

    def serve(self, request: dict[str, Any]) -> None:
        """Answer one request of the first party."""
        self._server.device = request["device"]
        result = getattr(self._server, request["function"])(*request["args"], **request["kwargs"])
        self._communicator.send_obj(result.size(), 0, self._server.ttp_group)
        self._communicator.broadcast(result, DEALER_RANK, self._server.comm_group)


def sum_pool(tensor: Any, kernel: Size, stride: Size, padding: Size) -> Any:
    """Sums over windows, which CrypTen has only inside its average."""
    summed = tensor.shallow_copy()
    summed._tensor = summed._tensor._sum_pool2d(kernel, stride=stride, padding=padding)
    return summed


def words_of(tensor: Any) -> NDArray[np.uint64]:
    """A party's own share, as elements of Z_2^64."""
    share: NDArray[np.uint64] = tensor.share.numpy().view(np.uint64)
    return share


def one_hot_argmax(share: NDArray[np.uint64], ring_bits: int, *, first: bool) -> NDArray[np.uint64]:
    """A party's share mod 2^64 of the one-hot argmax of values, from its share uint64[B, C] mod 2^ring_bits.

    CrypTen breaks ties at random; here the lowest index wins. A share times 2^(64 - ring_bits) is a share of the
    value times that, mod 2^64: the low bits are free, and one party (`first`) counts down in them.
    """
    import torch

    room_bits, classes = WORD_BITS - ring_bits, share.shape[1]
    if classes > 1 << room_bits:
        raise ValueError(f"{classes} classes mod 2^{ring_bits} leave no room for the tie-break")
    lifted = share << np.uint64(room_bits)
    if first:
        lifted = lifted + np.arange(classes, dtype=np.uint64)[::-1]
    tensor = crypten().mpc.MPCTensor.from_shares(torch.from_numpy(lifted.view(np.int64)), precision=0)
    return words_of(tensor.argmax(dim=1, one_hot=True))
