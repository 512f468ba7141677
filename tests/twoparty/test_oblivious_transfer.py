import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capcsim.backend import Role, Step
from capcsim.crypto.correlated_ot import CotReceiver, CotSender
from capcsim.errors import PeerFailed
from capcsim.twoparty.oblivious_transfer import base_ot_receiver, base_ot_sender, refill_receiver, refill_sender
from capcsim.twoparty.programs import Recv, Send, Steps, run_local
from tests.crypto.test_ot import pair, small_order_point

ROLES = (Role.QUERIER, Role.ANSWERER)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=12))
def test_the_receiver_gets_the_chosen_keys_and_only_those(choices: list[int]) -> None:
    programs = (base_ot_sender(len(choices)), base_ot_receiver(np.array(choices, np.uint8)))
    (pairs, chosen), _ = run_local(ROLES, programs, step=Step.SETUP)
    assert chosen == [pair[choice] for pair, choice in zip(pairs, choices, strict=True)]
    assert all(key not in chosen for pair, choice in zip(pairs, choices, strict=True) for key in [pair[1 - choice]])
    assert len({key for pair in pairs for key in pair}) == 2 * len(choices)


@pytest.mark.parametrize("bad", [b"\xff" * 32, b"\x00" * 32, small_order_point(), b"short"])
@pytest.mark.parametrize("victim", ["sender", "receiver"])
def test_invalid_points_are_refused(bad: bytes, victim: str) -> None:
    def cheats() -> Steps:
        if victim == "receiver":
            yield Send(bad)
        else:
            yield Recv()
            yield Send(bad)

    honest = base_ot_receiver(np.zeros(1, np.uint8)) if victim == "receiver" else base_ot_sender(1)
    with pytest.raises(PeerFailed, match="base OT"):
        run_local(ROLES, (cheats(), honest), step=Step.SETUP)


def refill(sender: CotSender, receiver: CotReceiver, needed: int) -> None:
    run_local(ROLES, (refill_sender(sender, needed), refill_receiver(receiver, needed)), step=Step.SETUP)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=6))
def test_transfers_are_correlated_by_delta(takes: list[int]) -> None:
    sender, receiver, delta = pair()
    for needed in takes:
        refill(sender, receiver, needed)
        zeros, (choices, labels) = sender.take(needed), receiver.take(needed)
        assert np.array_equal(labels, zeros ^ (delta * choices.astype(np.uint64)[:, None]))
        assert sender.available == receiver.available
