"""Disjoint parts of a data set: each party's training samples, the query pools, the evaluation sets."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import ScenarioError
from capcsim.learning.samples import Dataset, listed, quoted
from capcsim.scenario import Data, Parties
from capcsim.seeds import Seeds

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Partition:
    """Indices into a data set.

    `shards[p][v]` trains the v-th model of party p, `pools[q]` is what querying party q may ask about, and on
    `evaluations[q]` its models are judged. All are disjoint, but that querying parties share one evaluation set
    where the samples come from no site.
    """

    shards: tuple[tuple[Indices, ...], ...]
    pools: tuple[Indices, ...]
    evaluations: tuple[Indices, ...]

    def owned(self, party: int) -> Indices:
        """All training samples of a party."""
        return np.concatenate(self.shards[party])


@dataclass(frozen=True, slots=True)
class _Wish:
    """Samples that the scenario asks for: `each` at so many `places`, never fewer than `fewest` each."""

    key: str
    each: int
    places: int
    fewest: int
    title: str

    @property
    def total(self) -> int:
        return self.each * self.places

    def __str__(self) -> str:
        return f"{self.places} {self.title} x {self.each}" if self.places > 1 else f"{self.title} {self.each}"


def partition(dataset: Dataset, data: Data, parties: Parties, seeds: Seeds) -> Partition:
    """Draw every part without replacement (paper, section 4.2); raises ScenarioError.

    Parties get samples of the set's own training part where it has one; pools and evaluation then come from its
    test part. By site, a party is a site, and its pool and its evaluation set are its own too.
    """
    if data.partition == "site":
        owned, pools, evaluations = _by_site(dataset, data, parties, seeds)
    else:
        training, pools, evaluation = _drawn(dataset, data, parties, seeds)
        sizes = _sizes(data, parties, seeds)
        owned = (
            np.split(training, np.cumsum(sizes)[:-1])
            if data.partition == "uniform"
            else _dirichlet(dataset, data, training, sizes, seeds)
        )
        evaluations = [evaluation] * parties.queriers
    weak = parties.count if data.weak_parties == "all" else parties.queriers
    owned[:weak] = [_weakened(dataset, data, rows, seeds, party) for party, rows in enumerate(owned[:weak])]
    _check_owned(dataset, data, parties, owned)
    shards = tuple(tuple(np.array_split(rows, parties.virtual_per_party)) for rows in owned)
    return Partition(shards, tuple(pools), tuple(evaluations))


def _drawn(dataset: Dataset, data: Data, parties: Parties, seeds: Seeds) -> tuple[Indices, list[Indices], Indices]:
    """All training samples in a random order, the pools, the evaluation set."""
    assert data.train_per_party is not None, "the scenario checks this"
    training, pools = parties.count * data.train_per_party, parties.queriers * data.pool_per_querier
    _check_size(dataset, data, parties)
    order = seeds.generator("partition").permutation(len(dataset.y))
    if dataset.training is None:
        held_out = order[training : training + pools + data.evaluation]
    else:
        held_out = order[order >= dataset.training][: pools + data.evaluation]
        order = order[order < dataset.training]
    return order[:training], list(held_out[:pools].reshape(parties.queriers, -1)), held_out[pools:]


def _check_size(dataset: Dataset, data: Data, parties: Parties) -> None:
    """Whether there are enough samples; raises ScenarioError, which names a key that alone can make them fit."""
    assert data.train_per_party is not None, "the scenario checks this"
    training = _Wish("data.train_per_party", data.train_per_party, parties.count, parties.virtual_per_party, "parties")
    pools = _Wish("data.pool_per_querier", data.pool_per_querier, parties.queriers, 1, "pools")
    evaluation = _Wish("data.evaluation", data.evaluation, 1, 1, "evaluation")
    if dataset.training is None:
        _check_fits((training, pools, evaluation), len(dataset.y), dataset.name, parties)
    else:
        _check_fits((training,), dataset.training, f"{dataset.name}'s training part", parties)
        _check_fits((pools, evaluation), len(dataset.y) - dataset.training, f"{dataset.name}'s test part", parties)


def _check_fits(wishes: tuple[_Wish, ...], there: int, where: str, parties: Parties) -> None:
    total = sum(wish.total for wish in wishes)
    if total <= there:
        return
    asked = f"{' + '.join(map(str, wishes))} = {total} samples, but {where} has {there}"
    for wish in sorted(wishes, key=lambda wish: -wish.total):
        left = there - total + wish.total
        if left // wish.places >= wish.fewest:
            raise ScenarioError(wish.key, wish.each, f"{asked}; at most {left // wish.places} fit")
        if wish.title == "parties" and left // wish.each >= max(2, parties.queriers):
            raise ScenarioError("parties.count", parties.count, f"{asked}; at most {left // wish.each} fit")
    keys = ", ".join(wish.key for wish in wishes)
    raise ScenarioError("parties.count", parties.count, f"{asked}; lower several of parties.count, {keys}")


def _sizes(data: Data, parties: Parties, seeds: Seeds) -> NDArray[np.int64]:
    """The parties' numbers of samples: equal, or log-normal with the same total and at least one a shard."""
    assert data.train_per_party is not None, "the scenario checks this"
    if not data.size_spread:
        return np.full(parties.count, data.train_per_party)
    weights = np.exp(data.size_spread * seeds.generator("sizes").standard_normal(parties.count))
    free = parties.count * (data.train_per_party - parties.virtual_per_party)
    # Rounding the cumulative shares keeps the total exact.
    ends: NDArray[np.int64] = np.rint(free * np.cumsum(weights) / weights.sum()).astype(np.int64)
    sizes: NDArray[np.int64] = np.diff(ends, prepend=0) + parties.virtual_per_party
    return sizes


def _dirichlet(
    dataset: Dataset, data: Data, training: Indices, sizes: NDArray[np.int64], seeds: Seeds
) -> list[Indices]:
    """Each party draws its own mixture of classes (Hsu et al. 2019, arXiv:1909.06335) until its samples are found.

    The mixture is Dirichlet with parameter alpha x C x the classes' shares; a class that has run out is left to the
    classes that have not.
    """
    generator = seeds.generator("dirichlet")
    left = [list(training[dataset.y[training] == label]) for label in range(dataset.classes)]
    shares = np.array([len(rows) for rows in left]) / len(training)
    assert data.dirichlet_alpha is not None, "the scenario checks this"
    owned = []
    for size in sizes:
        mixture = generator.dirichlet(np.maximum(data.dirichlet_alpha * dataset.classes * shares, 1e-9))
        rows: list[int] = []
        while len(rows) < size:
            there = np.array([len(found) > 0 for found in left])
            weights = np.where(there, mixture, 0) if mixture[there].sum() > 1e-9 else there / there.sum()
            for label, count in enumerate(generator.multinomial(size - len(rows), weights / weights.sum())):
                rows += [left[label].pop() for _ in range(min(count, len(left[label])))]
        owned.append(np.array(rows, np.int64))
    return owned


def _by_site(
    dataset: Dataset, data: Data, parties: Parties, seeds: Seeds
) -> tuple[list[Indices], list[Indices], list[Indices]]:
    """Each site's samples: for a querying party first its pool and its evaluation set, the rest to train on."""
    assert dataset.site is not None, "the scenario checks this"
    sites = int(dataset.site.max()) + 1
    if parties.count != sites:
        named = f" ({listed(dataset.names['sites'])})" if "sites" in dataset.names else ""
        allowed = f"{sites}: one party for each site of {dataset.name}{named}"
        raise ScenarioError("parties.count", parties.count, allowed)
    owned, pools, evaluations = [], [], []
    for site in range(sites):
        rows = np.flatnonzero(dataset.site == site)
        rows = rows[seeds.generator("partition", site).permutation(len(rows))]
        if site < parties.queriers:
            kept = data.pool_per_querier + data.evaluation
            if kept + parties.virtual_per_party > len(rows):
                key, other = sorted(("evaluation", "pool_per_querier"), key=lambda name: -getattr(data, name))
                room = len(rows) - getattr(data, other) - parties.virtual_per_party
                name = quoted(dataset.names["sites"][site]) if "sites" in dataset.names else site
                there = f"site {name} has {len(rows)} samples, data.{other} = {getattr(data, other)}"
                allowed = f"at most {room}: {there}" if room > 0 else f"{there}, which leaves none: lower both"
                raise ScenarioError(f"data.{key}", getattr(data, key), allowed)
            pools.append(rows[: data.pool_per_querier])
            evaluations.append(rows[data.pool_per_querier : kept])
            rows = rows[kept:]
        owned.append(rows[: data.train_per_party])
    return owned, pools, evaluations


def _weakened(dataset: Dataset, data: Data, rows: Indices, seeds: Seeds, party: int) -> Indices:
    """A party's samples with only weak_ratio of each weak class left (paper, section 4.2 and appendix F.1).

    The paper does not say whose; its authors' code weakens the querying parties only.
    """
    if not data.weak_classes:
        return rows
    if max(data.weak_classes) >= dataset.classes:
        allowed = f"numbers of classes of {dataset.name}: 0 to {dataset.classes - 1}"
        raise ScenarioError("data.weak_classes", list(data.weak_classes), allowed)
    generator = seeds.generator("weak", party)
    keep = np.ones(len(rows), bool)
    for label in data.weak_classes:
        members = np.flatnonzero(dataset.y[rows] == label)
        # A remainder is left to chance, so that the parties together keep the ratio.
        kept = int(np.floor(data.weak_ratio * len(members) + generator.random()))
        keep[generator.permutation(members)[kept:]] = False
    return rows[keep]


def _check_owned(dataset: Dataset, data: Data, parties: Parties, owned: list[Indices]) -> None:
    """Every shard has a sample and every class an owner; raises ScenarioError."""
    smallest = min(range(parties.count), key=lambda party: len(owned[party]))
    if len(owned[smallest]) < parties.virtual_per_party:
        allowed = f"at most {len(owned[smallest])}, the number of samples that party {smallest} has to train on"
        raise ScenarioError("parties.virtual_per_party", parties.virtual_per_party, allowed)
    held = np.bincount(dataset.y[np.concatenate(owned)], minlength=dataset.classes)
    nobody = np.flatnonzero(held == 0)
    if len(nobody):
        raise _unheld(dataset, data, int(nobody[0]))


def _unheld(dataset: Dataset, data: Data, label: int) -> ScenarioError:
    """The error for a class that no party has a sample of, which names the key that is to blame."""
    samples = int((dataset.y == label).sum())
    named = f" ({quoted(dataset.names['classes'][label])})" if "classes" in dataset.names else ""
    found = f"nobody holds class {label}{named}, of which {dataset.name} has {samples} of {len(dataset.y)} samples"
    if label in data.weak_classes and data.weak_parties == "all":
        return ScenarioError("data.weak_ratio", data.weak_ratio, f"enough that every class is left; {found}")
    if data.train_per_party is None:
        key = max(("evaluation", "pool_per_querier"), key=lambda name: int(getattr(data, name)))
        return ScenarioError(f"data.{key}", getattr(data, key), f"less, so that every class is trained on; {found}")
    allowed = f"enough that every class is held by a party; {found}: take more, or leave that class out"
    return ScenarioError("data.train_per_party", data.train_per_party, allowed)
