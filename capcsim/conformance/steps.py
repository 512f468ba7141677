"""Checks of what the steps compute, and of their transcripts."""

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import (
    VOTE_RING_BITS,
    Backend,
    Prepared,
    ReleaseNoise,
    Shares,
)
from capcsim.conformance.judging import require
from capcsim.conformance.samples import convolution, inputs, logistic, mlp, opened, steps
from capcsim.conformance.transcripts import check_transcript
from capcsim.crypto.shares import share
from capcsim.twoparty.voting import noisy_argmax, one_hot_argmax

BATCHES = (1, 7)


def infer_equals_reference(backend: Backend) -> None:
    """Bit for bit if exact, else in the vote of every query that is not nearly tied."""
    for model in (mlp(1), logistic(2), convolution(3)):
        prepared = backend.prepare(model, seed=0)
        for batch in BATCHES:
            x = inputs(prepared, batch)
            logits, expected = opened(_infer(backend, prepared, x)), backend.reference(prepared, x)
            if backend.capabilities.exact:
                require(np.array_equal(logits, expected), f"logits differ from reference at batch {batch}")
                continue
            clear = _margin(expected) > 0.01 * (1 << prepared.public.fraction_bits)
            same = logits.argmax(axis=1) == expected.argmax(axis=1)
            require(bool(same[clear].all()), f"votes differ from reference at batch {batch}, far from a tie")


def reference_does_not_depend_on_the_batch(backend: Backend) -> None:
    """Ten queries together or one by one give the same logits."""
    prepared = backend.prepare(convolution(4), seed=0)
    x = inputs(prepared, 10)
    together = backend.reference(prepared, x)
    one_by_one = np.concatenate([backend.reference(prepared, row[None]) for row in x])
    require(np.array_equal(together, one_by_one), "reference changes with the batch")


def shares_are_fresh(backend: Backend) -> None:
    """The same query twice gives unrelated shares, of logits and of votes."""
    prepared = backend.prepare(mlp(5), seed=0)
    session, _ = backend.open(0, prepared)
    x = inputs(prepared, 3)
    first, second = (backend.infer(session, x)[0] for _ in range(2))
    for i, side in enumerate(("querier", "answerer")):
        require(not np.array_equal(first.values[i], second.values[i]), f"the {side}'s logit shares repeat")
    votes = [backend.argmax(session, first)[0].values for _ in range(2)]
    require(not np.array_equal(votes[0][0], votes[1][0]), "vote shares repeat")


def argmax_is_one_hot_with_the_lowest_index_on_ties(backend: Backend) -> None:
    """Also at the ends of the ring."""
    prepared = backend.prepare(mlp(6), seed=0)
    session, _ = backend.open(0, prepared)
    bits, high = prepared.public.ring_bits, (1 << (prepared.public.ring_bits - 2)) - 1
    logits = np.array(
        [[5, 5, 1, 5], [-7, -7, -7, -7], [-high, high, 0, high], [0, 0, 0, 1], [-2, -1, -3, -1], [high, 0, 0, high]]
    )
    shared = Shares(share(logits, bits), bits, prepared.public.fraction_bits)
    votes, _ = backend.argmax(session, shared)
    require(votes.ring_bits == VOTE_RING_BITS, f"votes are shared mod 2^{votes.ring_bits}, not 2^32")
    require(bool((votes.values < 1 << VOTE_RING_BITS).all()), "vote shares lie outside their ring")
    require(np.array_equal(opened(votes), one_hot_argmax(logits)), f"votes {opened(votes).tolist()} are wrong")


def release_is_the_noisy_argmax(backend: Backend) -> None:
    """With negative noise, ties, and Confident-GNMax's threshold."""
    counts = np.array([[10, 30, 9], [20, 20, 9], [0, 0, 49], [17, 16, 16]])
    noise = np.array([[25, 0, 0], [-3, -3, 8], [-400, 10, -60], [0, 1, 1]])
    session, _ = backend.open(0, None)
    shares = share(counts, VOTE_RING_BITS)
    for drawn in (ReleaseNoise(noise), ReleaseNoise(noise, 25, np.array([0, 5, -30, 8]))):
        found, _ = backend.release(session, shares[0], shares[1], drawn)
        expected = noisy_argmax(counts, drawn)
        require(np.array_equal(found.labels, expected.labels), f"labels {found.labels} are not {expected.labels}")
        require(np.array_equal(found.answered, expected.answered), f"answered {found.answered} is wrong")


def transcripts_are_well_formed(backend: Backend) -> None:
    """Acyclic, between the right roles, with work and bytes that are not negative."""
    for step, transcript, roles in steps(backend, backend.prepare(mlp(8), seed=0)):
        check_transcript(step, transcript, roles)


def _infer(backend: Backend, prepared: Prepared, x: NDArray[np.float32]) -> Shares:
    session, _ = backend.open(0, prepared)
    logits, _ = backend.infer(session, x)
    expected = (2, len(x), prepared.public.classes)
    require(logits.values.shape == expected, f"shares have shape {logits.values.shape}, not {expected}")
    require(logits.values.dtype == np.uint64, f"shares are {logits.values.dtype}, not uint64")
    require(logits.ring_bits == prepared.public.ring_bits, "shares and the public part name different rings")
    return logits


def _margin(logits: NDArray[np.int64]) -> NDArray[np.int64]:
    """The largest logit minus the second."""
    ordered = np.sort(logits, axis=1)
    return ordered[:, -1] - ordered[:, -2]
