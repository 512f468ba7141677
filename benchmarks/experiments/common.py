"""What the paper's experiments share: settings, one collaboration without cryptography, files, pictures.

Votes are those of the protocol's own integer reference, which an exact backend equals bit for bit. Noise
has the law of the discrete Gaussian that a run adds and is seeded, so that results repeat; epsilon is that of real
noise. Models are kept by content: a second run trains nothing.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from capcsim.costs.cache import host, versions
from capcsim.errors import CapcsimError
from capcsim.fixed_point import compile_model
from capcsim.learning.checkpoints import Checkpoints
from capcsim.learning.datasets import load_dataset
from capcsim.learning.ensemble import Bought, Ensemble, PartyModels, nothing_bought
from capcsim.learning.metrics import Quality
from capcsim.learning.models import Model
from capcsim.learning.parallel import run_all
from capcsim.learning.tasks import TrainingTask
from capcsim.learning.training import train_all
from capcsim.privacy.accountant import ANALYSES, Analysis
from capcsim.privacy.mechanisms import Event, GNMax, NoiseKind
from capcsim.privacy.noise import simulated_noise
from capcsim.privacy.theorem6 import log_q
from capcsim.privacy.votes import TRUE_LABEL
from capcsim.scenario import Scenario, Selection, parse_scenario
from capcsim.seeds import Seeds

SELECTIONS: tuple[Selection, ...] = ("random", "entropy", "margin", "k-center")
BEFORE, AFTER = "#9aa5b1", "#1f5fa8"


@dataclass(frozen=True)
class Setting:
    """One data set as the paper uses it (section 4.2, appendix F.1), and what it does not say, chosen by us.

    `labels` is about what each querying party bought in the paper at `epsilon`, by its data-dependent analysis.
    """

    dataset: str
    parties: int
    train_per_party: int
    sigma: float
    delta: float
    epsilon: float
    kinds: tuple[str, ...]
    mixed_kinds: tuple[str, ...]
    weak_classes: tuple[int, ...]
    weak_ratio: float
    pool: int = 3000
    evaluation: int = 1000
    labels: int = 550
    queriers: int = 3
    retrainings: int = 5
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 2e-3
    width: float = 1.0
    selection: Selection = "random"

    def quick(self) -> "Setting":
        """Small enough for two cores and a minute, and no longer comparable with the paper."""
        return replace(
            self,
            parties=40,
            train_per_party=min(self.train_per_party, 240),
            sigma=6.0,
            delta=1e-3,
            epsilon=8.0,
            pool=300,
            evaluation=500,
            labels=100,
            retrainings=2,
            epochs=10,
            width=0.25,
        )


_DEEP = ("vgg-7", "resnet-8", "resnet-10")
_GREY = ("lenet", "cryptonet-relu", "mlp")
_MNIST = Setting("mnist", 250, 240, 40.0, 1e-6, 2.35, ("lenet",), _GREY, (1, 2), 0.1)
SETTINGS = {
    "mnist": _MNIST,
    "fashion_mnist": replace(_MNIST, dataset="fashion_mnist", epsilon=3.89),
    "cifar10": Setting("cifar10", 50, 1000, 7.0, 1e-5, 20.0, ("vgg-5",), _DEEP, (7, 8, 9), 0.2, learning_rate=1e-3),
    "svhn": replace(
        Setting("svhn", 250, 2417, 40.0, 1e-6, 2.0, ("vgg-7",), _DEEP, (1, 2), 0.1, learning_rate=1e-3),
        pool=3333,
        evaluation=16032,
    ),
}


Samples = list[NDArray[np.int64]]
"""Of each querying party."""
Counts = NDArray[np.int64]
"""Votes for each class on each query, int64[n, C]."""


@dataclass
class Collaboration:
    """One seed's parties, their models, and the steps of the collaboration, by the code that a run uses."""

    setting: Setting
    seed: int
    arguments: argparse.Namespace
    weak_parties: str = ""
    kinds: tuple[str, ...] = ()
    trained_s: float = 0.0
    votes: dict[str, list[NDArray[np.int8]]] = field(default_factory=dict)

    @cached_property
    def scenario(self) -> Scenario:
        """The setting as a scenario; what concerns costs is never used."""
        setting, access = self.setting, {"up_bps": 1e9, "down_bps": 1e9}
        weak: dict[str, Any] = {}
        if self.weak_parties:
            weak = {"weak_classes": list(setting.weak_classes), "weak_ratio": setting.weak_ratio}
            weak["weak_parties"] = self.weak_parties
        return parse_scenario(
            {
                "title": "experiment",
                "seed": self.seed,
                "data": {
                    "source": setting.dataset,
                    "folder": self.arguments.data,
                    "train_per_party": setting.train_per_party,
                    "pool_per_querier": setting.pool,
                    "evaluation": setting.evaluation,
                    **weak,
                },
                "parties": {"count": setting.parties, "queriers": setting.queriers},
                "models": {
                    "kinds": list(self.kinds or setting.kinds),
                    "hidden": [100],
                    "width": setting.width,
                    "epochs": setting.epochs,
                    "batch_size": setting.batch_size,
                    "learning_rate": setting.learning_rate,
                    "weight_decay": 1e-4,
                    "retrainings": setting.retrainings,
                    "baselines": ["pooling", "fedavg"] if getattr(self.arguments, "baselines", False) else [],
                },
                "queries": {"selection": setting.selection, "per_querier": setting.labels},
                "privacy": {"sigma": setting.sigma, "epsilon": setting.epsilon, "delta": setting.delta},
                "network": {"latency_s": 0.0, "party": access, "guardian": access},
                "machines": {"party": {"cores": 1}, "guardian": {"cores": 1}},
            }
        )

    @cached_property
    def ensemble(self) -> Ensemble:
        """The parties."""
        return Ensemble.of(self.scenario, load_dataset(self.scenario.data))

    @cached_property
    def models(self) -> PartyModels:
        """What they trained."""
        started_s = time.perf_counter()
        models = self.ensemble.train(self.train)
        self.trained_s = time.perf_counter() - started_s
        return models

    def train(self, tasks: Sequence[TrainingTask], title: str) -> list[Model]:
        """Trained models, with a word to whoever waits."""
        say(f"{title}: {len(tasks)} models")
        return train_all(
            tasks, self.scenario.models, workers=self.arguments.workers, checkpoints=Checkpoints(self.arguments.cache)
        )

    def select(self, selection: Selection, count: int) -> list[NDArray[np.int64]]:
        """The samples that each querying party asks about, in their order."""
        nothing = nothing_bought()
        return [
            self.ensemble.select(selection, own, querier, count, nothing, nothing[0])
            for querier, own in enumerate(self.models.own)
        ]

    def vote(self, asked: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int8]]:
        """Every voter's label for each query, -1 where it is the querying party's own: int8[V, n] each."""
        say(f"voting: {len(self.models.voters)} models on {sum(map(len, asked))} queries")
        ensemble, cast = self.ensemble, []
        inputs = [ensemble.samples(querier, rows) for querier, rows in enumerate(asked)]
        everything = np.concatenate(inputs)
        ends = np.cumsum([len(rows) for rows in asked])[:-1]
        jobs = ((model.estimator, everything) for model in self.models.voters)
        labels = np.stack(list(run_all(labels_of_model, jobs, workers=self.arguments.workers)))
        for querier, votes in enumerate(np.split(labels, ends, axis=1)):
            votes = votes.copy()
            votes[np.array(ensemble.owners) == querier] = -1
            cast.append(votes)
        return cast

    def vote_once(self, selections: Sequence[Selection]) -> Iterator[tuple[Selection, Samples, list[NDArray[np.int8]]]]:
        """The whole pools in the order of each way of selecting, and the votes on them, cast once."""
        pools = self.ensemble.parts.pools
        cast, place = self.vote(pools), np.zeros(len(self.ensemble.dataset.y), np.int64)
        for pool in pools:
            place[pool] = np.arange(len(pool))
        for selection in selections:
            asked = self.select(selection, self.setting.pool)
            yield selection, asked, [votes[:, place[rows]] for votes, rows in zip(cast, asked, strict=True)]

    def labels(self, votes: Sequence[NDArray[np.int8]], sigma: float, draw: int = 0) -> list[NDArray[np.int64]]:
        """The noisy argmax of the votes on every query; the lowest class wins a tie."""
        found = []
        for querier, cast in enumerate(votes):
            counts = self.counts(cast)
            generator = Seeds(self.seed).generator("noise", querier, draw)
            found.append((counts + simulated_noise(GNMax(sigma), counts.shape, generator)).argmax(axis=1))
        return found

    def counts(self, votes: NDArray[np.int8]) -> Counts:
        """Votes for each class: int64[n, C]."""
        return np.stack([(votes == label).sum(axis=0) for label in range(self.ensemble.dataset.classes)], axis=1)

    def right(self, asked: Sequence[NDArray[np.int64]], labels: Sequence[NDArray[np.int64]]) -> float:
        """The share of the labels that are right."""
        truth = self.ensemble.dataset.y
        return fmean(float((found == truth[rows]).mean()) for rows, found in zip(asked, labels, strict=True))

    def retrain(
        self, asked: Sequence[NDArray[np.int64]], labels: Sequence[NDArray[np.int64]], count: int
    ) -> list[list[Quality]]:
        """Each querying party's models with the first so many labels, by seed of retraining."""
        bought: list[Bought] = [(rows[:count], found[:count]) for rows, found in zip(asked, labels, strict=True)]
        return self.ensemble.retrain(bought, self.train, f"retraining with {count} labels")

    def affordable(self, votes: Sequence[NDArray[np.int8]]) -> dict[str, int]:
        """By analysis, the labels that the paper's epsilon buys every querying party, of the queries voted on."""
        return {
            name: min(self._affordable(analysis, self.counts(cast)) for cast in votes)
            for name, analysis in ANALYSES.items()
        }

    def _affordable(self, analysis: type[Analysis], counts: Counts) -> int:
        setting = self.setting
        low, high = 0, len(counts) + 1
        while high - low > 1:
            middle = (low + high) // 2
            fits = self._epsilon(analysis, counts[:middle]) <= setting.epsilon
            low, high = (middle, high) if fits else (low, middle)
        return low

    def epsilons(self, votes: Sequence[NDArray[np.int8]], labels: int, sigma: float | None = None) -> dict[str, float]:
        """By analysis, what each querying party's first so many labels cost; the largest of them."""
        return {
            name: max(self._epsilon(analysis, self.counts(cast)[:labels], sigma) for cast in votes)
            for name, analysis in ANALYSES.items()
        }

    def _epsilon(self, analysis: type[Analysis], counts: Counts, sigma: float | None = None) -> float:
        mechanism = GNMax(sigma or self.setting.sigma)
        if not len(counts):
            return 0.0
        logs = log_q(counts, mechanism, NoiseKind.DISCRETE)
        return analysis(mechanism, self.setting.delta).epsilon_of(Counter(Event(log_q=float(log)) for log in logs))

    def save_votes(self, name: str, asked: Sequence[NDArray[np.int64]], votes: Sequence[NDArray[np.int8]]) -> list[str]:
        """One file of counts a querying party, as `capcsim account` and `capcsim tune` read them; their names."""
        names = []
        for querier, (rows, cast) in enumerate(zip(asked, votes, strict=True)):
            columns = {str(label): column for label, column in enumerate(self.counts(cast).T)}
            path = self.arguments.output / f"votes-{name}-seed{self.seed}-querier{querier}.parquet"
            pq.write_table(pa.table({**columns, TRUE_LABEL: self.ensemble.dataset.y[rows]}), path)
            names.append(path.name)
        return names


def labels_of_model(estimator: Any, x: NDArray[np.float32]) -> NDArray[np.int8]:
    """What a model answers, by the protocol's integer reference: int8[n]."""
    with threadpool_limits(1):
        network = compile_model(estimator)
        return network.evaluate(network.encode(x)).argmax(axis=1).astype(np.int8)


def parser(doc: str | None, datasets: Sequence[str] = tuple(SETTINGS)) -> argparse.ArgumentParser:
    """The options that every experiment has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--dataset", choices=datasets, default=datasets[0])
    made.add_argument("--data", help="folder of the data sets; else CAPCSIM_DATA")
    made.add_argument("--quick", action="store_true", help="small sizes, a minute or two on two cores: no results")
    made.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    made.add_argument("--output", type=Path, help="folder for JSON, PNG and votes; else runs/experiments/...")
    made.add_argument("--workers", type=positive, default=2, help="processes that train")
    made.add_argument("--cache", type=Path, help="folder of trained models; else the user's cache")
    made.add_argument("--seeds", type=positive, default=1, help="whole runs, each with parties of its own")
    made.add_argument("--retrainings", type=positive, help="seeds of retraining")
    made.add_argument("--parties", type=positive)
    made.add_argument("--labels", type=positive, help="labels in place of the paper's number")
    made.add_argument("--selection", choices=SELECTIONS)
    made.add_argument("--epochs", type=positive, help="of training; fewer make weaker models")
    return made


def positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1")
    return int(text)


def setting_of(arguments: argparse.Namespace) -> Setting:
    """The setting that the options ask for. With other parties the data stay the same and are dealt out anew."""
    setting = SETTINGS[arguments.dataset]
    if arguments.quick:
        setting = setting.quick()
    if arguments.parties:
        setting = with_parties(setting, arguments.parties)
    given = {name: getattr(arguments, name) for name in ("labels", "selection", "retrainings", "epochs")}
    return replace(setting, **{name: value for name, value in given.items() if value is not None})


def with_parties(setting: Setting, parties: int) -> Setting:
    """The same data, dealt out to another number of parties."""
    everything = setting.parties * setting.train_per_party
    return replace(setting, parties=parties, train_per_party=everything // parties)


def start(arguments: argparse.Namespace, name: str) -> float:
    """Make the folder that the results go to; returns the time."""
    arguments.output = arguments.output or Path("runs/experiments") / name
    arguments.output.mkdir(parents=True, exist_ok=True)
    return time.perf_counter()


def finish(
    arguments: argparse.Namespace, name: str, found: dict[str, Any], figure: Figure, rows: list[str], started_s: float
) -> None:
    """Write JSON, PNG and Markdown, and print what was asked for."""
    found |= {
        "figure": name,
        "quick": arguments.quick,
        "seconds": time.perf_counter() - started_s,
        "host": host(),
        "versions": versions(),
        "markdown": rows,
    }
    if note := found.get("data_note"):
        figure.text(0.01, 0.005, note, fontsize=7)
    figure.savefig(arguments.output / f"{name}.png", dpi=150)
    (arguments.output / f"{name}.json").write_text(json.dumps(found, indent=2))
    (arguments.output / f"{name}.md").write_text("\n".join([*rows, *(["", note] if note else [])]) + "\n")
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print("\n".join(rows))
    if note:
        print(note)
    print(f"{found['seconds']:.0f} s; in {arguments.output}: {name}.json, .png, .md, votes")
    setting, votes = found["setting"], sorted(arguments.output.glob(f"votes-{name}-*.parquet"))[0]
    mechanism = f"--mechanism gnmax --sigma {setting['sigma']:g} --delta {setting['delta']:g} --noise discrete"
    print(f"votes on the whole pool, in the order of asking: capcsim account {votes} {mechanism}")


def pooled(by_querier: Sequence[Sequence[Quality]], name: str = "accuracy") -> list[float]:
    """One measure of every querying party and seed of retraining."""
    return [float(getattr(quality, name)) for found in by_querier for quality in found]


def per_class(by_querier: Sequence[Sequence[Quality]]) -> list[float]:
    """Each class's accuracy, over all querying parties and seeds."""
    means: list[float] = np.nanmean([quality.per_class for found in by_querier for quality in found], axis=0).tolist()
    return means


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and sample deviation."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": fmean(values), "deviation": deviation, "values": list(values)}


def points(value: float | None) -> str:
    """A difference in percentage points."""
    return "-" if value is None else f"{100 * value:+.2f}"


def gain_cell(gains: Sequence[dict[str, Any]]) -> str:
    """The mean over whole runs; its deviation over them, and that over querying parties and seeds of retraining."""
    means = spread([gain["mean"] for gain in gains])
    within = spread([value for gain in gains for value in gain["values"]])
    between = "" if means["deviation"] is None else f" +- {100 * means['deviation']:.2f}"
    one = "" if within["deviation"] is None else f" ({100 * within['deviation']:.2f})"
    return f"{points(means['mean'])}{between}{one}"


GAIN = "gain, points [+- over runs] (deviation over parties and retrainings)"


def asked_name(setting: Setting) -> str:
    """What the number of labels that was not bought by an analysis is."""
    return "the paper's number" if setting.labels == SETTINGS[setting.dataset].labels else "as asked"


def epsilons(found: Sequence[dict[str, float]]) -> str:
    """Epsilon by each analysis, the mean over whole runs."""
    return ", ".join(f"{fmean(each[name] for each in found):.2f}" for name in found[0])


def labels_of(runs: Sequence[dict[str, Any]]) -> str:
    """How many labels each querying party bought, in whichever run."""
    counts = [run["labels"] for run in runs]
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"


def command(main: Callable[[], None]) -> None:
    """Run an experiment; what the user can mend is one line and exit code 2."""
    try:
        main()
    except CapcsimError as error:
        say(f"{Path(sys.argv[0]).name}: {error}")
        sys.exit(2)


def say(text: str) -> None:
    """Progress, on the other stream."""
    print(text, file=sys.stderr, flush=True)
