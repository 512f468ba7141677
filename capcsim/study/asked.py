"""The second stage: which samples each querying party asks about, and everybody's votes on them by the reference.

Votes are kept on disk for each query and model, so that none is cast twice, whatever else has changed.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capcsim.backend import SATURATION, Backend
from capcsim.caches import Cache
from capcsim.costs.cache import identity_of
from capcsim.costs.measured import pair_group
from capcsim.learning.assumed import assumed_votes
from capcsim.learning.ensemble import Bought, Ensemble
from capcsim.learning.partition import Indices
from capcsim.protocol.steps import Voter
from capcsim.scenario import NoData
from capcsim.study.means import Means, content_key
from capcsim.study.trained import Trained

Ballots = NDArray[np.int64]
"""The class for which each voter votes on each query, int64[V, n]; -1 where the voter is the querying party's own."""
UNKNOWN = -1


@dataclass(frozen=True)
class Asked:
    """What is asked in all rounds so far.

    Querying party q asks about the samples `rows[q]` int64[n].
    """

    voters: tuple[Voter, ...]
    rows: tuple[Indices, ...]
    ballots: tuple[Ballots, ...]
    key: str


def ask(
    trained: Trained,
    backend: Backend,
    earlier: Asked | None,
    bought: Sequence[Bought],
    until: Sequence[int],
    round_: int,
    means: Means,
) -> Asked:
    """Select queries up to number `until[q]` of querying party q, and let everybody vote on the new ones."""
    ensemble, selection = trained.ensemble, trained.ensemble.scenario.queries
    if isinstance(ensemble.scenario.data, NoData):
        return _assumed(trained, ensemble.scenario.data, backend, until)
    identity = identity_of(backend, ensemble.scenario.protocol.options)
    before = [rows.tobytes() for rows in earlier.rows] if earlier else []
    pools = [(pool, ensemble.samples(querier, pool)) for querier, pool in enumerate(ensemble.parts.pools)]
    key = content_key(trained.key, pools, selection.selection, identity, until, round_, before, *bought)

    def make() -> tuple[Asked, bool]:
        voters = _voters(trained, backend, earlier)
        empty = [(np.zeros(0, np.int64), np.zeros((len(voters), 0), np.int64)) for _ in ensemble.queriers]
        known = list(zip(earlier.rows, earlier.ballots, strict=True)) if earlier else empty
        new = [
            ensemble.select(selection.selection, own, q, until[q] - len(rows), bought[q], rows, round_)
            for q, (own, (rows, _)) in enumerate(zip(trained.models.own, known, strict=True))
        ]
        cast, anew = _Ballots(trained, backend, voters, content_key(identity)).cast(new, means)
        return Asked(
            voters,
            tuple(np.concatenate([rows, more]) for (rows, _), more in zip(known, new, strict=True)),
            tuple(np.concatenate([ballots, more], axis=1) for (_, ballots), more in zip(known, cast, strict=True)),
            key,
        ), anew

    return means.memory.value("asked", key, make)


def _assumed(trained: Trained, data: NoData, backend: Backend, until: Sequence[int]) -> Asked:
    """Queries about nothing, one after another, with votes by chance."""
    ensemble, voters = trained.ensemble, _voters(trained, backend, None)
    rows = tuple(pool[:count] for pool, count in zip(ensemble.parts.pools, until, strict=True))
    ballots = []
    for querier, asked in enumerate(rows):
        votes = assumed_votes(data, ensemble.dataset.y[asked], len(voters), querier, ensemble.seeds)
        votes[[voter.index for voter in voters if voter.party == querier]] = UNKNOWN
        ballots.append(votes)
    key = content_key(trained.key, identity_of(backend, ensemble.scenario.protocol.options), rows, ballots)
    return Asked(voters, rows, tuple(ballots), key)


def _voters(trained: Trained, backend: Backend, earlier: Asked | None) -> tuple[Voter, ...]:
    """Every voter's model made ready; those whose models are what they were stay as they are."""
    ensemble, seeds = trained.ensemble, trained.ensemble.seeds
    kept = {} if earlier is None else {v.index: v for v in earlier.voters if v.index not in trained.changed}
    if isinstance(ensemble.scenario.data, NoData):  # all of a kind have one model
        different = {id(model): model for model in trained.models.voters}
        made = {key: backend.prepare(model.estimator, seed=0) for key, model in different.items()}
        pairs = zip(ensemble.owners, trained.models.voters, strict=True)
        return tuple(Voter(index, party, made[id(model)]) for index, (party, model) in enumerate(pairs))
    return tuple(
        kept.get(index) or Voter(index, party, backend.prepare(model.estimator, seed=seeds.integer("prepare", index)))
        for index, (party, model) in enumerate(zip(ensemble.owners, trained.models.voters, strict=True))
    )


def saturation(ensemble: Ensemble, asked: Asked, backend: Backend) -> float | None:
    """The share of inputs and activations that are clamped, in one voter of each architecture and what it is asked.

    None where the backend does not tell, or there are no data.
    """
    saturating = SATURATION.of(backend)
    if saturating is None or isinstance(ensemble.scenario.data, NoData):
        return None
    rates = []
    for voter in {pair_group(voter.prepared.public): voter for voter in asked.voters}.values():
        querier = next((q for q, rows in enumerate(asked.rows) if q != voter.party and len(rows)), None)
        if querier is not None:
            rates.append(saturating.saturation(voter.prepared, ensemble.samples(querier, asked.rows[querier])))
    return max(rates, default=None)


class _Ballots:
    """One file for each set of models under one backend: the samples that it voted on, and the votes."""

    def __init__(self, trained: Trained, backend: Backend, voters: Sequence[Voter], identity: str) -> None:
        self._ensemble: Ensemble = trained.ensemble
        self._backend, self._voters = backend, voters
        self._files, self._name = Cache("votes"), f"{content_key(identity, trained.models.keys)}.npz"

    def cast(self, asked: Sequence[Indices], means: Means) -> tuple[list[Ballots], bool]:
        """The votes on each querying party's samples, and whether any had to be cast now."""
        inputs = [self._ensemble.samples(querier, rows) for querier, rows in enumerate(asked)]
        names = [[content_key(sample) for sample in x] for x in inputs]
        kept = self._read()
        for querier_names in names:
            for name in querier_names:
                kept.setdefault(name, np.full(len(self._voters), UNKNOWN, np.int16))
        advance = means.progress.stage("voting", len(self._voters))
        anew = False
        for voter in self._voters:
            anew |= self._vote(voter, inputs, names, kept)
            advance(1)
        # What nobody could find again is not kept.
        if anew and all(own.is_kept for own in self._ensemble.own.values()):
            self._write(kept)
        return [self._ballots(querier, found, kept) for querier, found in enumerate(names)], anew

    def _vote(
        self,
        voter: Voter,
        inputs: Sequence[NDArray[np.float32]],
        names: Sequence[Sequence[str]],
        kept: dict[str, NDArray[np.int16]],
    ) -> bool:
        """One voter's votes on what it has not voted on; is there any?"""
        anew = False
        for querier, (x, found) in enumerate(zip(inputs, names, strict=True)):
            left = [i for i, name in enumerate(found) if kept[name][voter.index] == UNKNOWN]
            if voter.party == querier or not left:
                continue
            logits = self._backend.reference(voter.prepared, x[left])
            for i, label in zip(left, logits.argmax(axis=1), strict=True):
                kept[found[i]][voter.index] = label
            anew = True
        return anew

    def _ballots(self, querier: int, names: Sequence[str], kept: dict[str, NDArray[np.int16]]) -> Ballots:
        columns = [kept[name] for name in names]
        there = np.stack(columns, axis=1) if columns else np.zeros((len(self._voters), 0), np.int16)
        found: Ballots = there.astype(np.int64)
        found[[voter.index for voter in self._voters if voter.party == querier]] = UNKNOWN
        return found

    def _read(self) -> dict[str, NDArray[np.int16]]:
        """By sample; a damaged file counts as absent."""
        content = self._files.read(self._name)
        try:
            with np.load(io.BytesIO(content or b""), allow_pickle=False) as file:
                names, ballots = file["samples"], file["ballots"]
            whole = ballots.shape == (len(names), len(self._voters)) and ballots.dtype == np.int16
        except Exception:  # damaged bytes may fail in any way
            return {}
        fits = whole and bool(((ballots >= UNKNOWN) & (ballots < self._ensemble.dataset.classes)).all())
        return dict(zip(names.tolist(), ballots.copy(), strict=True)) if fits else {}

    def _write(self, kept: dict[str, NDArray[np.int16]]) -> None:
        content = io.BytesIO()
        np.savez_compressed(content, samples=np.array(list(kept)), ballots=np.stack(list(kept.values())))
        self._files.write(self._name, content.getvalue())
