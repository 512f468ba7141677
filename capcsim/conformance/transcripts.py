"""Whether a transcript is one of its step."""

from capcsim.backend import (
    Compute,
    Message,
    Phase,
    Role,
    Scope,
    Step,
    Transcript,
)
from capcsim.conformance.judging import require

PAIR_ROLES = frozenset({Role.QUERIER, Role.ANSWERER, Role.DEALER})
GUARDIAN_ROLES = frozenset({Role.QUERIER, Role.GUARDIAN, Role.DEALER})


def check_transcript(step: Step, transcript: Transcript, roles: frozenset[Role]) -> None:
    """Raise Failure unless a transcript is one of this step between these roles; only a set-up may be empty."""
    hint = "run both roles with capcsim.twoparty.programs.run_local, which measures them"
    for kind, lacks in ((Message, "sends no message"), (Compute, "does no work")):
        measured = step is Step.SETUP or any(isinstance(node, kind) for node in transcript)
        require(measured, f"{step} {lacks}; {hint}")
    for index, node in enumerate(transcript):
        where = f"{step}, node {index}"
        require(node.step is step, f"{where} is labelled {node.step}")
        require((node.phase is Phase.SETUP) == (step is Step.SETUP), f"{where} has phase {node.phase}")
        require(all(0 <= earlier < index for earlier in node.after), f"{where} waits for a later node")
        if isinstance(node, Compute):
            require(node.seconds >= 0 and node.role in roles, f"{where} is wrong: {node}")
        else:
            ends = {node.sender, node.receiver}
            require(node.nbytes >= 0 and len(ends) == 2 and ends <= roles, f"{where} is wrong: {node}")
            require(node.scope is Scope.PAIR, f"{where}: a message is its pair's own")
        if node.scope is not Scope.PAIR:
            own = [earlier for earlier in node.after if transcript[earlier].scope is Scope.PAIR]
            require(not own, f"{where} is shared by all pairs, but waits for one pair's work")
