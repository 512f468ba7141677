"""The test kit that every backend must pass; `capcsim check NAME` runs it.

Each check takes a backend and raises `Failure` with a sentence. The kit holds a backend to its interface,
to its own `reference`, to the tie-break, to fresh shares, and to well-formed transcripts. It cannot show
that a backend is secure.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from capcsim.backend import Backend
from capcsim.conformance import interface, offers, steps
from capcsim.conformance.judging import Failure


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


CHECKS: dict[str, Callable[[Backend], None]] = {
    check.__name__.replace("_", " "): check
    for check in (
        interface.capabilities_are_declared,
        interface.prepare_publishes_no_weight,
        interface.public_layers_are_values,
        interface.prepare_refuses_what_it_cannot_do,
        steps.infer_equals_reference,
        steps.reference_does_not_depend_on_the_batch,
        steps.shares_are_fresh,
        steps.argmax_is_one_hot_with_the_lowest_index_on_ties,
        steps.release_is_the_noisy_argmax,
        interface.bad_inputs_are_refused,
        steps.transcripts_are_well_formed,
        offers.offers_are_there_and_declared,
        offers.offered_programs_are_those_of_the_steps,
        offers.offered_work_ahead_is_a_part_of_infer,
        offers.offered_details_are_json,
        offers.offered_saturation_is_a_share,
        offers.an_offered_tap_sees_every_message,
        offers.offered_progress_is_told,
        interface.close_can_be_repeated,
    )
}
