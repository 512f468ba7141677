"""Checks of what a backend offers besides the steps."""

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from capcsim.backend import (
    AHEAD,
    DETAILS,
    OFFERS,
    PROGRAMS,
    PROGRESS,
    SATURATION,
    TAP,
    Backend,
    Message,
    Phase,
    Step,
)
from capcsim.conformance.judging import expect, require
from capcsim.conformance.samples import inputs, mlp, steps
from capcsim.conformance.transcripts import PAIR_ROLES, check_transcript
from capcsim.errors import InputError


def offers_are_there_and_declared(backend: Backend) -> None:
    """What is declared is there, and what is there is declared; an instance may offer less than its class."""
    declared, by_class = backend.capabilities.offers, type(backend).capabilities.offers
    known = {offer.name for offer in OFFERS}
    require(known.issuperset(declared), f"it offers {sorted(declared)}; known: {', '.join(sorted(known))}")
    for offer in OFFERS:
        name, member, there = offer.name, offer.member, offer.is_in(backend)
        require(there or name not in declared, f"it offers {name!r} and has no {member}")
        unused = there and name not in declared | by_class
        require(not unused, f"it has {member}, which is not used unless its capabilities offer {name!r}")


def offered_programs_are_those_of_the_steps(backend: Backend) -> None:
    """Two of infer, argmax and release each, and InputError for a step between other parties."""
    if found := PROGRAMS.of(backend):
        for step in (Step.INFER, Step.ARGMAX, Step.RELEASE):
            both = found.programs(step)
            require(len(both) == 2 and all(map(callable, both)), f"the programs of {step} are {both}")
        expect(InputError, partial(found.programs, Step.AGGREGATE))


def offered_work_ahead_is_a_part_of_infer(backend: Backend) -> None:
    """It is offline, and the transcript of the infer that uses it has its nodes."""
    if found := AHEAD.of(backend):
        prepared = backend.prepare(mlp(9), seed=0)
        session, _ = backend.open(0, prepared)
        ahead = found.prepare_ahead(session, 2)
        check_transcript(Step.INFER, ahead, PAIR_ROLES)
        require(all(node.phase is Phase.OFFLINE for node in ahead), "a part of the work ahead is not offline")
        _, transcript = backend.infer(session, inputs(prepared, 2))
        ahead_nodes, all_nodes = (Counter(replace(node, after=()) for node in nodes) for nodes in (ahead, transcript))
        require(ahead_nodes <= all_nodes, "the transcript of infer lacks the work ahead that it used")


def offered_details_are_json(backend: Backend) -> None:
    """After an infer."""
    if found := DETAILS.of(backend):
        prepared = backend.prepare(mlp(10), seed=0)
        session, _ = backend.open(0, prepared)
        backend.infer(session, inputs(prepared, 2))
        details = found.details(session, 2)
        require(json.loads(json.dumps(details)) == details, f"details are no JSON: {details}")


def offered_saturation_is_a_share(backend: Backend) -> None:
    """More for inputs out of any range; InputError for a NaN."""
    if found := SATURATION.of(backend):
        prepared = backend.prepare(mlp(11), seed=0)
        low, high = (found.saturation(prepared, factor * inputs(prepared, 5)) for factor in (1, np.float32(1e9)))
        require(0 <= low < high <= 1, f"the share that is clamped is {low}, and {high} of inputs of 1e9")
        expect(InputError, partial(found.saturation, prepared, np.full((2, 6), np.nan, np.float32)))


def an_offered_tap_sees_every_message(backend: Backend) -> None:
    """Those of each step's transcript, and nothing else."""
    if found := TAP.of(backend):
        prepared, seen, sent = backend.prepare(mlp(12), seed=0), Counter[Any](), Counter[Any]()
        found.tap = lambda sender, receiver, payload: seen.update([(sender, receiver, len(payload))])
        try:
            for _, transcript, _ in steps(backend, prepared):
                sent.update((n.sender, n.receiver, n.nbytes) for n in transcript if isinstance(n, Message))
        finally:
            found.tap = None
        lost, more = sent - seen, seen - sent
        require(not lost and not more, f"the tap did not see {dict(lost)}, and saw {dict(more)} besides")


def offered_progress_is_told(backend: Backend) -> None:
    """Shares of the work of an infer, none less than the one before."""
    if found := PROGRESS.of(backend):
        prepared, told = backend.prepare(mlp(13), seed=0), list[float]()
        session, _ = backend.open(0, prepared)
        found.progress = told.append
        try:
            backend.infer(session, inputs(prepared, 2))
        finally:
            found.progress = None
        require(bool(told) and told == sorted(told), f"the shares of an infer that were told are {told}")
        require(0 <= told[0] <= told[-1] <= 1 + 1e-9, f"a share lies outside 0 to 1: {told}")
