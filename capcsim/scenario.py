"""What the user asked for: frozen models with the units in the names.

`capcsim.scenario_files` reads them. What no model can be is one ScenarioError that gives the key's path, the value
found, and what is allowed.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from capcsim.errors import ScenarioError
from capcsim.scenario_errors import together

MILLION = 10**6
# Ranges are wide, but physical: what lies outside is a slip of the unit or of the finger.
Count: TypeAlias = Annotated[int, Field(ge=1, le=1000 * MILLION, strict=True)]
Few: TypeAlias = Annotated[int, Field(ge=1, le=MILLION, strict=True)]
Positive: TypeAlias = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False, strict=True)]
OneLine: TypeAlias = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Price: TypeAlias = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False, strict=True)]
Probability: TypeAlias = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, strict=True)]
Noise: TypeAlias = Annotated[float, Field(ge=1e-3, le=1e5, allow_inf_nan=False, strict=True)]
Rate: TypeAlias = Annotated[float, Field(ge=1, le=1e15, allow_inf_nan=False, strict=True)]
NetworkKind: TypeAlias = Literal[
    "logistic", "mlp", "cryptonet-relu", "lenet", "vgg-5", "vgg-7", "resnet-8", "resnet-10"
]
TreesKind: TypeAlias = Literal["adaboost", "random-forest"]
ModelKind: TypeAlias = Literal[NetworkKind, TreesKind]
MedMnist: TypeAlias = Literal[
    "pathmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist", "bloodmnist",
    "tissuemnist", "organamnist", "organcmnist", "organsmnist",
]  # fmt: skip
FolderSource: TypeAlias = Literal["mnist", "fashion_mnist", "cifar10", "svhn", "heart", MedMnist]
Selection: TypeAlias = Literal["random", "entropy", "margin", "k-center"]
FileSource: TypeAlias = Literal["npz", "csv", "parquet"]


class Section(BaseModel):
    """A part of a scenario: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    """Where the samples come from and how many each party gets."""

    source: Literal["digits", "breast_cancer", FolderSource, FileSource]
    path: Path | None = Field(None, description="a file of samples; only for source npz, csv or parquet")
    folder: Path | None = Field(None, exclude=True, description="where named sets lie; by default CAPCSIM_DATA")
    label: str = Field("label", description="the column of labels; for csv and parquet")
    site: str | None = Field(None, description="the column of sites; for csv and parquet")
    protected: str | None = Field(
        None, description="the column of a protected attribute with two values; for csv and parquet"
    )
    drop: tuple[Annotated[str, Field(strict=True)], ...] = Field(
        (), description="columns to leave out, such as a patient's number; for csv and parquet"
    )
    missing: Literal["error", "median"] = Field("error", description="median: each party fills in its own medians")
    partition: Literal["uniform", "site", "dirichlet"] = "uniform"
    dirichlet_alpha: Positive | None = Field(None, description="the smaller, the more the parties' classes differ")
    size_spread: Annotated[float, Field(ge=0, le=5, strict=True)] = Field(
        0.0, description="standard deviation of the log of the parties' sizes"
    )
    weak_classes: tuple[Annotated[int, Field(ge=0, le=MILLION, strict=True)], ...] = ()
    weak_ratio: Annotated[float, Field(ge=0, le=1, strict=True)] = Field(
        0.1, description="share of the weak classes' training samples that is left"
    )
    weak_parties: Literal["queriers", "all"] = Field("queriers", description="whose weak classes are weak")
    train_per_party: Count | None = Field(None, description="labelled samples that each party owns")
    pool_per_querier: Count = Field(description="unlabelled samples that each querying party may ask about")
    evaluation: Count = Field(description="samples kept apart to measure accuracy")


class Parties(Section):
    """Who takes part. Parties 0 to queriers - 1 ask; every party answers the others."""

    count: Annotated[int, Field(ge=2, le=MILLION, strict=True)] = Field(description="how many parties there are")
    queriers: Few = Field(1, description="how many of them ask")
    virtual_per_party: Few = Field(1, description="disjoint shards, each with a model and a vote of its own")


class Models(Section):
    """What the parties train; kinds are dealt out to the parties in turn."""

    kinds: Annotated[tuple[ModelKind, ...], Field(min_length=1)] = ("logistic",)
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=1 << 16, strict=True)], ...], Field(min_length=1)] = Field(
        (32,), description="neurons of each hidden layer of an mlp"
    )
    width: Annotated[float, Field(gt=0, le=16, strict=True)] = Field(
        1.0, description="scales the channels of image models"
    )
    trees: Annotated[int, Field(ge=1, le=10_000, strict=True)] = Field(
        20, description="trees of a forest or of AdaBoost"
    )
    tree_depth: Annotated[int, Field(ge=1, le=8, strict=True)] = 3
    epochs: Few = 150
    batch_size: Few = 64
    learning_rate: Annotated[float, Field(ge=1e-9, le=100, allow_inf_nan=False, strict=True)] = 0.01
    weight_decay: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, strict=True)] = 1e-3
    retrainings: Annotated[int, Field(ge=1, le=1000, strict=True)] = Field(
        1, description="seeds over which accuracy before and after is averaged"
    )
    baselines: tuple[Literal["pooling", "fedavg"], ...] = Field((), description="what to compare with")
    fedavg_rounds: Few = 50


class Queries(Section):
    """What a querying party asks, and how it sends it."""

    selection: Selection = "random"
    per_querier: Count = Field(description="labels that a querying party wants")
    rounds: Few = Field(1, description="times that a querying party selects, asks and retrains")
    batch: Few = Field(10, description="queries that travel together")
    in_flight: Few = Field(1, description="batches of one querying party under way at once")


class Privacy(Section):
    """The noise, the budget, and who shares it."""

    mechanism: Literal["gnmax", "lnmax", "confident-gnmax"] = "gnmax"
    sigma: Noise | None = Field(None, description="discrete Gaussian noise, in votes; for gnmax and confident-gnmax")
    scale: Noise | None = Field(None, description="discrete Laplace noise, in votes; for lnmax")
    threshold: Annotated[int, Field(ge=0, le=1 << 20, strict=True)] | None = Field(
        None, description="votes that the largest count needs, with its noise, for an answer; for confident-gnmax"
    )
    sigma1: Noise | None = Field(
        None, description="discrete Gaussian noise of the threshold test, in votes; for confident-gnmax"
    )
    epsilon: Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False, strict=True)] = Field(
        description="the budget of each account"
    )
    delta: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, strict=True)] = Field(
        description="the delta of (epsilon, delta)"
    )
    noise: Literal["real", "simulation"] = Field("real", description="simulation: seeded, protects nobody")
    analysis: Literal["data-independent", "theorem6-mironov"] = Field(
        "data-independent",
        description="what the budget is judged by; theorem6-mironov is the paper's, which depends on private votes",
    )
    budget_scope: Literal["querier", "coalition", "party"] = Field(
        "querier", description="one for each querying party, one for all, or one for each answering party"
    )
    unit: Literal["party", "record"] = Field("party", description="what epsilon protects")
    book: Literal["record", "enforce"] = Field(
        "record",
        description="the book of runs on this host: record what a run takes from each training record, or enforce that"
        " all runs together stay within privacy.epsilon",
    )
    corrupted_parties: Few = Field(1, description="units that are protected together: parties that pool what they know")


class Protocol(Section):
    """Which cryptography, how much of it really runs, and who must answer."""

    backend: str = "plaintext"
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="what the backend is made with, e.g. security = 16384 for hybrid"
    )
    execute: Literal["all", "sample", "none"] = "sample"
    samples: Annotated[int, Field(ge=5, le=10_000, strict=True)] = Field(5, description="executions of each stratum")
    quorum: Annotated[float, Field(gt=0, le=1, strict=True)] = Field(
        1.0, description="share of the votes that must have arrived by the deadline"
    )
    deadline_s: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="how long the privacy guardian waits for a batch, at most 31 years"
    )


class Access(Section):
    """One machine's access link."""

    up_bps: Rate = Field(description="from the machine; from a bit a second to what one optical fibre carries")
    down_bps: Rate = Field(description="to the machine; from a bit a second to what one optical fibre carries")


class Network(Section):
    """Access links of parties and guardian, and the one-way latency between any two machines."""

    latency_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False, strict=True)] = Field(
        description="one way; up to an hour, as of a satellite that stores and forwards"
    )
    party: Access
    guardian: Access


class Machine(Section):
    """A machine's cores, each `speed` times as fast as the one on which transcripts were measured."""

    cores: Annotated[int, Field(ge=1, le=4096, strict=True)] = Field(
        description="up to more than the largest machines with one memory have"
    )
    speed: Annotated[float, Field(ge=1e-3, le=1e3, allow_inf_nan=False, strict=True)] = Field(
        1.0, description="against the machine on which transcripts were measured: from a microcontroller up"
    )


class Machines(Section):
    """What the parties and the guardian compute on."""

    party: Machine
    guardian: Machine
    parties_per_machine: Few = 1


class Faults(Section):
    """What goes wrong."""

    drop_probability: Probability = Field(0.0, description="that a party does not answer a batch")
    decline_probability: Probability = Field(0.0, description="that a party declines a batch, and says so")


class Prices(Section):
    """What the simulated resources cost."""

    currency: OneLine = "EUR"
    per_core_hour: Price = 0.0
    per_gb_sent: Price = 0.0


class Scenario(Section):
    """One experiment, complete."""

    title: str
    seed: Annotated[int, Field(ge=0, lt=1 << 63, strict=True)] = 0
    data: Data
    parties: Parties
    models: Models = Models()
    queries: Queries
    privacy: Privacy
    protocol: Protocol = Protocol()
    network: Network
    machines: Machines
    faults: Faults = Faults()
    prices: Prices = Prices()

    _changed: tuple[str, ...] = PrivateAttr(())

    def with_changes(self, changed: tuple[str, ...]) -> Self:
        """The same scenario, remembering in what it differs from its file, a change an item."""
        marked = self.model_copy()
        marked._changed = changed
        return marked

    @property
    def title_as_run(self) -> str:
        """The title on one line, with what was changed since it was written."""
        title = " ".join("".join(sign if sign.isprintable() else " " for sign in self.title).split())
        return f"{title} (changed: {', '.join(self._changed)})" if self._changed else title

    @property
    def voters(self) -> int:
        """Models that exist, virtual ones included."""
        return self.parties.count * self.parties.virtual_per_party

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """Combinations that cannot be run, all of them in one ScenarioError."""
        checks = (_check_data(self.data), _check_parties(self), _check_privacy(self), _check_protocol(self))
        problems = list(chain(*checks))
        if problems:
            raise together(problems)
        return self


def _check_data(data: Data) -> Iterator[ScenarioError]:
    tables, files = ("csv", "parquet"), get_args(FileSource)
    if (data.source in files) != (data.path is not None):
        allowed = "a file for data.source = 'npz', 'csv' or 'parquet', and only for it"
        yield ScenarioError("data.path", data.path and str(data.path), allowed)
    given = {"label": data.label != "label", "drop": data.drop, "site": data.site, "protected": data.protected}
    for key in (key for key, value in given.items() if value and data.source not in tables):
        allowed = "remove it: only a csv or parquet file has columns with names"
        found = getattr(data, key)
        yield ScenarioError(f"data.{key}", list(found) if key == "drop" else found, allowed)
    for key in ("site", "protected"):
        if getattr(data, key) == data.label:
            yield ScenarioError(f"data.{key}", getattr(data, key), "another column than data.label names")
    used = [name for name in data.drop if name in (data.label, data.site, data.protected)]
    if used or len(set(data.drop)) < len(data.drop):
        allowed = f"columns of no other use; {used[0]!r} has one" if used else "each column once"
        yield ScenarioError("data.drop", list(data.drop), allowed)
    if data.partition == "site" and data.site is None and data.source != "heart":
        allowed = "'uniform' or 'dirichlet', or name the column data.site of a csv or parquet file"
        yield ScenarioError("data.partition", "site", allowed)
    if data.partition != "site" and data.train_per_party is None:
        yield ScenarioError("data.train_per_party", None, "required: labelled samples that each party owns")
    if (data.partition == "dirichlet") != (data.dirichlet_alpha is not None):
        allowed = "a number above 0 for data.partition = 'dirichlet', and only for it"
        yield ScenarioError("data.dirichlet_alpha", data.dirichlet_alpha, allowed)
    if len(set(data.weak_classes)) < len(data.weak_classes):
        yield ScenarioError("data.weak_classes", list(data.weak_classes), "each class once")
    if data.partition == "site" and data.size_spread:
        yield ScenarioError("data.size_spread", data.size_spread, "0: a site has the size that it has")


def _check_parties(scenario: Scenario) -> Iterator[ScenarioError]:
    parties, data = scenario.parties, scenario.data
    if parties.queriers > parties.count:
        yield ScenarioError("parties.queriers", parties.queriers, f"at most parties.count = {parties.count}")
    if data.train_per_party is not None and parties.virtual_per_party > data.train_per_party:
        allowed = f"at most data.train_per_party = {data.train_per_party}, one sample a shard"
        yield ScenarioError("parties.virtual_per_party", parties.virtual_per_party, allowed)
    if scenario.queries.per_querier > data.pool_per_querier:
        allowed = f"at most data.pool_per_querier = {data.pool_per_querier}"
        yield ScenarioError("queries.per_querier", scenario.queries.per_querier, allowed)
    if scenario.queries.rounds > scenario.queries.per_querier:
        allowed = f"at most queries.per_querier = {scenario.queries.per_querier}, one query a round"
        yield ScenarioError("queries.rounds", scenario.queries.rounds, allowed)


# What each mechanism takes, in votes.
NOISE_KEYS = {"gnmax": ("sigma",), "lnmax": ("scale",), "confident-gnmax": ("sigma", "threshold", "sigma1")}


def _check_privacy(scenario: Scenario) -> Iterator[ScenarioError]:
    privacy = scenario.privacy
    wanted = NOISE_KEYS[privacy.mechanism]
    others = [key for key in ("sigma", "scale", "threshold", "sigma1") if key not in wanted]
    given = [key for key in others if getattr(privacy, key) is not None]
    missing = [key for key in wanted if getattr(privacy, key) is None]
    for key in missing:
        allowed = f"a number of votes{'' if key == 'threshold' else ' above 0'} for {privacy.mechanism}"
        if given:
            allowed += f", in place of privacy.{given[0]} (--set privacy.{given[0]}= removes it)"
        yield ScenarioError(f"privacy.{key}", None, allowed)
    for key in given if not missing else ():
        allowed = f"remove it: {privacy.mechanism} takes {' and '.join(f'privacy.{name}' for name in wanted)}"
        yield ScenarioError(f"privacy.{key}", getattr(privacy, key), allowed)
    if privacy.corrupted_parties >= scenario.parties.count:
        allowed = f"fewer than parties.count = {scenario.parties.count}"
        yield ScenarioError("privacy.corrupted_parties", privacy.corrupted_parties, allowed)
    if privacy.book == "enforce" and privacy.noise != "real":
        allowed = "'record': seeded noise protects nobody, and no budget pays for it"
        yield ScenarioError("privacy.book", "enforce", allowed)
    retrained = scenario.queries.rounds > 1 and scenario.parties.virtual_per_party == 1
    if privacy.budget_scope == "querier" and retrained and scenario.parties.queriers > 1:
        allowed = (
            "'coalition' or 'party': in a later round querying parties answer with what others' labels taught them"
        )
        yield ScenarioError("privacy.budget_scope", privacy.budget_scope, allowed)
    noise = max(privacy.sigma or 0, privacy.scale or 0, privacy.sigma1 or 0)
    room = (1 << 31) - int(40 * noise) - (privacy.threshold or 0)
    if scenario.voters >= room:
        allowed = f"fewer than {room // scenario.parties.virtual_per_party}: votes and noise must fit a ring of 2^32"
        yield ScenarioError("parties.count", scenario.parties.count, allowed)


def _check_protocol(scenario: Scenario) -> Iterator[ScenarioError]:
    protocol = scenario.protocol
    if protocol.execute == "none":
        allowed = "'all' or 'sample'; running without any cryptography needs cost estimates, which do not exist yet"
        yield ScenarioError("protocol.execute", "none", allowed)
    if scenario.faults.drop_probability > 0 and protocol.deadline_s is None:
        allowed = "a number of seconds, because faults.drop_probability > 0 and the guardian must not wait for ever"
        yield ScenarioError("protocol.deadline_s", None, allowed)
    elif protocol.quorum < 1 and protocol.deadline_s is None:
        allowed = "a number of seconds, because protocol.quorum < 1 says what is enough when time is up"
        yield ScenarioError("protocol.deadline_s", None, allowed)
