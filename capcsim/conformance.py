"""The test kit that every backend must pass; `capcsim check NAME` runs it.

Each check takes a backend and raises `Failure` with a sentence. The kit holds a backend to its interface,
to its own `reference`, to the tie-break, to fresh shares, and to well-formed transcripts. It cannot show
that a backend is secure.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import (
    AHEAD,
    DETAILS,
    OFFERS,
    PROGRAMS,
    PROGRESS,
    SATURATION,
    SECURITY,
    TAP,
    VOTE_RING_BITS,
    Backend,
    Compute,
    Message,
    Phase,
    Prepared,
    ReleaseNoise,
    Role,
    Scope,
    Shares,
    Step,
    Transcript,
)
from capcsim.crypto.shares import reconstruct, share
from capcsim.errors import InputError, UnsupportedModel
from capcsim.seeds import Seeds
from capcsim.twoparty.voting import noisy_argmax, one_hot_argmax

BATCHES = (1, 7)
PAIR_ROLES = frozenset({Role.QUERIER, Role.ANSWERER, Role.DEALER})
GUARDIAN_ROLES = frozenset({Role.QUERIER, Role.GUARDIAN, Role.DEALER})


class Failure(Exception):
    """A backend does not keep the contract."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check's name, whether it passed, and what was wrong."""

    name: str
    passed: bool
    detail: str


def run_checks(backend: Backend) -> Iterator[CheckResult]:
    """Run every check, in order; an unexpected exception counts as a failure."""
    for name, check in CHECKS.items():
        try:
            check(backend)
        except Failure as failure:
            yield CheckResult(name, False, str(failure))
        except Exception as error:  # whatever a foreign backend raises is a result here
            yield CheckResult(name, False, f"{type(error).__name__}: {error}")
        else:
            yield CheckResult(name, True, "")


def capabilities_are_declared(backend: Backend) -> None:
    """Security from the known list; names of what it needs are top-level imports."""
    found = backend.capabilities
    _require(found.security in SECURITY, f"security is {found.security!r}; allowed: {', '.join(SECURITY)}")
    _require(all("." not in need for need in found.needs), f"needs must be top-level names: {found.needs}")
    _require(bool(found.layers), "it declares no layer that it can evaluate")
    _require(bool(found.argmax and found.release), "it does not say how steps 1c and 3 are computed")


def prepare_publishes_no_weight(backend: Backend) -> None:
    """Two models of one architecture have the same public part."""
    first, second = (backend.prepare(_mlp(seed), seed=0).public for seed in (1, 2))
    _require(first == second, "the public part depends on the weights")
    _require(first.input_shape == (6,) and first.classes == 4, f"public part is wrong: {first}")


def public_layers_are_values(backend: Backend) -> None:
    """Each one says what it does, what it takes and what it gives: a cost is estimated from that."""
    for model in (_mlp(1), _convolution(2)):
        public = backend.prepare(model, seed=0).public
        for position, layer in enumerate(public.layers):
            where = f"layer {position} of the public part, {layer!r},"
            _require(not isinstance(layer, str), f"{where} is a text; give a value, as capcsim.fixed_point.layers has")
            hash(layer)
            _require(bool(layer.kind and str(layer)), f"{where} has no kind or no text")
            _require(all(0 <= source <= position for source in layer.sources), f"{where} takes a later layer's output")
            _require(all(size >= 1 for size in layer.shape), f"{where} has shape {layer.shape}")
        last = public.layers[-1].shape if public.layers else None
        _require(last == (public.classes,), f"the last layer gives {last}, where there are {public.classes} classes")


def prepare_refuses_what_it_cannot_do(backend: Backend) -> None:
    """A model with an unknown layer raises UnsupportedModel."""
    from torch import nn

    _expect(UnsupportedModel, lambda: backend.prepare(nn.Sequential(nn.Bilinear(3, 3, 2)), seed=0))


def infer_equals_reference(backend: Backend) -> None:
    """Bit for bit if exact, else in the vote of every query that is not nearly tied."""
    for model in (_mlp(1), _logistic(2), _convolution(3)):
        prepared = backend.prepare(model, seed=0)
        for batch in BATCHES:
            x = _inputs(prepared, batch)
            logits, expected = _opened(_infer(backend, prepared, x)), backend.reference(prepared, x)
            if backend.capabilities.exact:
                _require(np.array_equal(logits, expected), f"logits differ from reference at batch {batch}")
                continue
            clear = _margin(expected) > 0.01 * (1 << prepared.public.fraction_bits)
            same = logits.argmax(axis=1) == expected.argmax(axis=1)
            _require(bool(same[clear].all()), f"votes differ from reference at batch {batch}, far from a tie")


def reference_does_not_depend_on_the_batch(backend: Backend) -> None:
    """Ten queries together or one by one give the same logits."""
    prepared = backend.prepare(_convolution(4), seed=0)
    x = _inputs(prepared, 10)
    together = backend.reference(prepared, x)
    one_by_one = np.concatenate([backend.reference(prepared, row[None]) for row in x])
    _require(np.array_equal(together, one_by_one), "reference changes with the batch")


def shares_are_fresh(backend: Backend) -> None:
    """The same query twice gives unrelated shares, of logits and of votes."""
    prepared = backend.prepare(_mlp(5), seed=0)
    session, _ = backend.open(0, prepared)
    x = _inputs(prepared, 3)
    first, second = (backend.infer(session, x)[0] for _ in range(2))
    for i, side in enumerate(("querier", "answerer")):
        _require(not np.array_equal(first.values[i], second.values[i]), f"the {side}'s logit shares repeat")
    votes = [backend.argmax(session, first)[0].values for _ in range(2)]
    _require(not np.array_equal(votes[0][0], votes[1][0]), "vote shares repeat")


def argmax_is_one_hot_with_the_lowest_index_on_ties(backend: Backend) -> None:
    """Also at the ends of the ring."""
    prepared = backend.prepare(_mlp(6), seed=0)
    session, _ = backend.open(0, prepared)
    bits, high = prepared.public.ring_bits, (1 << (prepared.public.ring_bits - 2)) - 1
    logits = np.array(
        [[5, 5, 1, 5], [-7, -7, -7, -7], [-high, high, 0, high], [0, 0, 0, 1], [-2, -1, -3, -1], [high, 0, 0, high]]
    )
    shared = Shares(share(logits, bits), bits, prepared.public.fraction_bits)
    votes, _ = backend.argmax(session, shared)
    _require(votes.ring_bits == VOTE_RING_BITS, f"votes are shared mod 2^{votes.ring_bits}, not 2^32")
    _require(bool((votes.values < 1 << VOTE_RING_BITS).all()), "vote shares lie outside their ring")
    _require(np.array_equal(_opened(votes), one_hot_argmax(logits)), f"votes {_opened(votes).tolist()} are wrong")


def release_is_the_noisy_argmax(backend: Backend) -> None:
    """With negative noise, ties, and Confident-GNMax's threshold."""
    counts = np.array([[10, 30, 9], [20, 20, 9], [0, 0, 49], [17, 16, 16]])
    noise = np.array([[25, 0, 0], [-3, -3, 8], [-400, 10, -60], [0, 1, 1]])
    session, _ = backend.open(0, None)
    shares = share(counts, VOTE_RING_BITS)
    for drawn in (ReleaseNoise(noise), ReleaseNoise(noise, 25, np.array([0, 5, -30, 8]))):
        found, _ = backend.release(session, shares[0], shares[1], drawn)
        expected = noisy_argmax(counts, drawn)
        _require(np.array_equal(found.labels, expected.labels), f"labels {found.labels} are not {expected.labels}")
        _require(np.array_equal(found.answered, expected.answered), f"answered {found.answered} is wrong")


def bad_inputs_are_refused(backend: Backend) -> None:
    """A wrong shape, a NaN and an empty batch raise InputError, before anything is sent."""
    prepared = backend.prepare(_mlp(7), seed=0)
    session, _ = backend.open(0, prepared)
    for bad in (np.zeros((2, 5), np.float32), np.full((2, 6), np.nan, np.float32), np.zeros((0, 6), np.float32)):
        _expect(InputError, partial(backend.infer, session, bad))
        _expect(InputError, partial(backend.reference, prepared, bad))


def transcripts_are_well_formed(backend: Backend) -> None:
    """Acyclic, between the right roles, with work and bytes that are not negative."""
    for step, transcript, roles in _steps(backend, backend.prepare(_mlp(8), seed=0)):
        check_transcript(step, transcript, roles)


def offers_are_there_and_declared(backend: Backend) -> None:
    """What is declared is there, and what is there is declared; an instance may offer less than its class."""
    declared, by_class = backend.capabilities.offers, type(backend).capabilities.offers
    known = {offer.name for offer in OFFERS}
    _require(known.issuperset(declared), f"it offers {sorted(declared)}; known: {', '.join(sorted(known))}")
    for offer in OFFERS:
        name, member, there = offer.name, offer.member, offer.is_in(backend)
        _require(there or name not in declared, f"it offers {name!r} and has no {member}")
        unused = there and name not in declared | by_class
        _require(not unused, f"it has {member}, which is not used unless its capabilities offer {name!r}")


def offered_programs_are_those_of_the_steps(backend: Backend) -> None:
    """Two of infer, argmax and release each, and InputError for a step between other parties."""
    if found := PROGRAMS.of(backend):
        for step in (Step.INFER, Step.ARGMAX, Step.RELEASE):
            both = found.programs(step)
            _require(len(both) == 2 and all(map(callable, both)), f"the programs of {step} are {both}")
        _expect(InputError, partial(found.programs, Step.AGGREGATE))


def offered_work_ahead_is_a_part_of_infer(backend: Backend) -> None:
    """It is offline, and the transcript of the infer that uses it has its nodes."""
    if found := AHEAD.of(backend):
        prepared = backend.prepare(_mlp(9), seed=0)
        session, _ = backend.open(0, prepared)
        ahead = found.prepare_ahead(session, 2)
        check_transcript(Step.INFER, ahead, PAIR_ROLES)
        _require(all(node.phase is Phase.OFFLINE for node in ahead), "a part of the work ahead is not offline")
        _, transcript = backend.infer(session, _inputs(prepared, 2))
        ahead_nodes, all_nodes = (Counter(replace(node, after=()) for node in nodes) for nodes in (ahead, transcript))
        _require(ahead_nodes <= all_nodes, "the transcript of infer lacks the work ahead that it used")


def offered_details_are_json(backend: Backend) -> None:
    """After an infer."""
    if found := DETAILS.of(backend):
        prepared = backend.prepare(_mlp(10), seed=0)
        session, _ = backend.open(0, prepared)
        backend.infer(session, _inputs(prepared, 2))
        details = found.details(session, 2)
        _require(json.loads(json.dumps(details)) == details, f"details are no JSON: {details}")


def offered_saturation_is_a_share(backend: Backend) -> None:
    """More for inputs out of any range; InputError for a NaN."""
    if found := SATURATION.of(backend):
        prepared = backend.prepare(_mlp(11), seed=0)
        low, high = (found.saturation(prepared, factor * _inputs(prepared, 5)) for factor in (1, np.float32(1e9)))
        _require(0 <= low < high <= 1, f"the share that is clamped is {low}, and {high} of inputs of 1e9")
        _expect(InputError, partial(found.saturation, prepared, np.full((2, 6), np.nan, np.float32)))


def an_offered_tap_sees_every_message(backend: Backend) -> None:
    """Those of each step's transcript, and nothing else."""
    if found := TAP.of(backend):
        prepared, seen, sent = backend.prepare(_mlp(12), seed=0), Counter[Any](), Counter[Any]()
        found.tap = lambda sender, receiver, payload: seen.update([(sender, receiver, len(payload))])
        try:
            for _, transcript, _ in _steps(backend, prepared):
                sent.update((n.sender, n.receiver, n.nbytes) for n in transcript if isinstance(n, Message))
        finally:
            found.tap = None
        lost, more = sent - seen, seen - sent
        _require(not lost and not more, f"the tap did not see {dict(lost)}, and saw {dict(more)} besides")


def offered_progress_is_told(backend: Backend) -> None:
    """Shares of the work of an infer, none less than the one before."""
    if found := PROGRESS.of(backend):
        prepared, told = backend.prepare(_mlp(13), seed=0), list[float]()
        session, _ = backend.open(0, prepared)
        found.progress = told.append
        try:
            backend.infer(session, _inputs(prepared, 2))
        finally:
            found.progress = None
        _require(bool(told) and told == sorted(told), f"the shares of an infer that were told are {told}")
        _require(0 <= told[0] <= told[-1] <= 1 + 1e-9, f"a share lies outside 0 to 1: {told}")


def close_can_be_repeated(backend: Backend) -> None:
    """Closing twice is no error."""
    backend.close()
    backend.close()


CHECKS: dict[str, Callable[[Backend], None]] = {
    check.__name__.replace("_", " "): check
    for check in (
        capabilities_are_declared,
        prepare_publishes_no_weight,
        public_layers_are_values,
        prepare_refuses_what_it_cannot_do,
        infer_equals_reference,
        reference_does_not_depend_on_the_batch,
        shares_are_fresh,
        argmax_is_one_hot_with_the_lowest_index_on_ties,
        release_is_the_noisy_argmax,
        bad_inputs_are_refused,
        transcripts_are_well_formed,
        offers_are_there_and_declared,
        offered_programs_are_those_of_the_steps,
        offered_work_ahead_is_a_part_of_infer,
        offered_details_are_json,
        offered_saturation_is_a_share,
        an_offered_tap_sees_every_message,
        offered_progress_is_told,
        close_can_be_repeated,
    )
}


def check_transcript(step: Step, transcript: Transcript, roles: frozenset[Role]) -> None:
    """Raise Failure unless a transcript is one of this step between these roles; only a set-up may be empty."""
    hint = "run both roles with capcsim.twoparty.programs.run_local, which measures them"
    for kind, lacks in ((Message, "sends no message"), (Compute, "does no work")):
        measured = step is Step.SETUP or any(isinstance(node, kind) for node in transcript)
        _require(measured, f"{step} {lacks}; {hint}")
    for index, node in enumerate(transcript):
        where = f"{step}, node {index}"
        _require(node.step is step, f"{where} is labelled {node.step}")
        _require((node.phase is Phase.SETUP) == (step is Step.SETUP), f"{where} has phase {node.phase}")
        _require(all(0 <= earlier < index for earlier in node.after), f"{where} waits for a later node")
        if isinstance(node, Compute):
            _require(node.seconds >= 0 and node.role in roles, f"{where} is wrong: {node}")
        else:
            ends = {node.sender, node.receiver}
            _require(node.nbytes >= 0 and len(ends) == 2 and ends <= roles, f"{where} is wrong: {node}")
            _require(node.scope is Scope.PAIR, f"{where}: a message is its pair's own")
        if node.scope is not Scope.PAIR:
            own = [earlier for earlier in node.after if transcript[earlier].scope is Scope.PAIR]
            _require(not own, f"{where} is shared by all pairs, but waits for one pair's work")


def _steps(backend: Backend, prepared: Prepared) -> Iterator[tuple[Step, Transcript, frozenset[Role]]]:
    """One batch from set-up to labels: each step's transcript, and the roles that it is between."""
    session, setup = backend.open(3, prepared)
    yield Step.SETUP, setup, PAIR_ROLES
    guardian, guardian_setup = backend.open(3, None)
    yield Step.SETUP, guardian_setup, GUARDIAN_ROLES
    logits, infer = backend.infer(session, _inputs(prepared, 2))
    yield Step.INFER, infer, PAIR_ROLES
    votes, argmax = backend.argmax(session, logits)
    yield Step.ARGMAX, argmax, PAIR_ROLES
    noise = ReleaseNoise(np.zeros((2, prepared.public.classes), np.int64))
    _, release = backend.release(guardian, votes.values[0], votes.values[1], noise)
    yield Step.RELEASE, release, GUARDIAN_ROLES


def _infer(backend: Backend, prepared: Prepared, x: NDArray[np.float32]) -> Shares:
    session, _ = backend.open(0, prepared)
    logits, _ = backend.infer(session, x)
    expected = (2, len(x), prepared.public.classes)
    _require(logits.values.shape == expected, f"shares have shape {logits.values.shape}, not {expected}")
    _require(logits.values.dtype == np.uint64, f"shares are {logits.values.dtype}, not uint64")
    _require(logits.ring_bits == prepared.public.ring_bits, "shares and the public part name different rings")
    return logits


def _opened(shares: Shares) -> NDArray[np.int64]:
    return reconstruct(shares.values, shares.ring_bits)


def _margin(logits: NDArray[np.int64]) -> NDArray[np.int64]:
    """The largest logit minus the second."""
    ordered = np.sort(logits, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def _inputs(prepared: Prepared, batch: int) -> NDArray[np.float32]:
    generator = Seeds(0).generator("conformance", batch)
    return generator.uniform(-1, 1, (batch, *prepared.public.input_shape)).astype(np.float32)


def _seeded(seed: int, *layers: Callable[[], Any]) -> Any:
    """A torch Sequential whose layers are made under a seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(*(layer() for layer in layers)).eval()


def _mlp(seed: int) -> Any:
    from torch import nn

    return _seeded(seed, lambda: nn.Linear(6, 5), nn.ReLU, lambda: nn.Linear(5, 4))


def _logistic(seed: int) -> Any:
    from torch import nn

    return _seeded(seed, lambda: nn.Linear(6, 4))


def _convolution(seed: int) -> Any:
    from torch import nn

    model = _seeded(
        seed, lambda: nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU, nn.Flatten, lambda: nn.Linear(18, 4)
    )
    model.input_shape = (1, 6, 6)
    return model


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise Failure(sentence)


def _expect(kind: type[Exception], call: Callable[[], object]) -> None:
    try:
        call()
    except kind:
        return
    raise Failure(f"{kind.__name__} was expected and did not come")
