"""`[data]`: the samples."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import ConfigDict, Field, Tag

from capcsim.errors import ScenarioError
from capcsim.scenario.base import APART, MILLION, Count, Positive, Section, kind_by

MedMnist: TypeAlias = Literal[
    "pathmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist", "bloodmnist",
    "tissuemnist", "organamnist", "organcmnist", "organsmnist",
]  # fmt: skip
Folder: TypeAlias = Annotated[
    Path | None, Field(exclude=True, description="where named sets lie; by default CAPCSIM_DATA")
]
File: TypeAlias = Annotated[Path, Field(json_schema_extra={"format": "file-path"})]
Missing: TypeAlias = Annotated[
    Literal["error", "median"], Field(description="median: each party fills in its own medians")
]


class Data(Section, ABC):
    """Where the samples come from and how many each party gets: what all sources have in common."""

    source: str
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

    @property
    @abstractmethod
    def has_sites(self) -> bool:
        """Whether each sample comes from a site."""

    def problems(self) -> Iterator[ScenarioError]:
        """Combinations of keys that cannot be."""
        if self.partition == "site" and not self.has_sites:
            allowed = "'uniform' or 'dirichlet', or name the column data.site of a csv or parquet file"
            yield ScenarioError("data.partition", "site", allowed)
        if self.partition != "site" and self.train_per_party is None:
            yield ScenarioError("data.train_per_party", None, "required: labelled samples that each party owns")
        if (self.partition == "dirichlet") != (self.dirichlet_alpha is not None):
            allowed = "a number above 0 for data.partition = 'dirichlet', and only for it"
            yield ScenarioError("data.dirichlet_alpha", self.dirichlet_alpha, allowed)
        if len(set(self.weak_classes)) < len(self.weak_classes):
            yield ScenarioError("data.weak_classes", list(self.weak_classes), "each class once")
        if self.partition == "site" and self.size_spread:
            yield ScenarioError("data.size_spread", self.size_spread, "0: a site has the size that it has")


class BundledData(Data):
    """Sets that ship with scikit-learn."""

    source: Literal["digits", "breast_cancer"]

    @property
    def has_sites(self) -> bool:
        """None is told."""
        return False


class ImageData(Data):
    """Named sets of images in a folder."""

    source: Literal["mnist", "fashion_mnist", "cifar10", "svhn", MedMnist]
    folder: Folder = None

    @property
    def has_sites(self) -> bool:
        """None is told."""
        return False


class HeartData(Data):
    """UCI's heart disease data in a folder: four hospitals."""

    source: Literal["heart"]
    folder: Folder = None
    missing: Missing = "error"

    @property
    def has_sites(self) -> bool:
        """The hospitals."""
        return True


class GivenData(Data):
    """Arrays that Python hands over."""

    source: Literal["arrays"]
    missing: Missing = "error"

    @property
    def has_sites(self) -> bool:
        """None is told."""
        return False


class ArrayData(Data):
    """A file of arrays."""

    source: Literal["npz"]
    path: File = Field(description="arrays x and y")
    missing: Missing = "error"

    @property
    def has_sites(self) -> bool:
        """None is told."""
        return False


class TableData(Data):
    """A file of rows."""

    source: Literal["csv", "parquet"]
    path: File = Field(description="a row for each sample")
    label: str = Field("label", description="the column of labels")
    site: str | None = Field(None, description="the column of sites")
    protected: str | None = Field(None, description="the column of a protected attribute with two values")
    drop: tuple[Annotated[str, Field(strict=True)], ...] = Field(
        (), description="columns to leave out, such as a patient's number"
    )
    missing: Missing = "error"

    @property
    def has_sites(self) -> bool:
        """Where a column names them."""
        return self.site is not None

    def problems(self) -> Iterator[ScenarioError]:
        """Columns with two uses beside what cannot be of any source."""
        for key in ("site", "protected"):
            if getattr(self, key) == self.label:
                yield ScenarioError(f"data.{key}", getattr(self, key), "another column than data.label names")
        used = [name for name in self.drop if name in (self.label, self.site, self.protected)]
        if used or len(set(self.drop)) < len(self.drop):
            allowed = f"columns of no other use; {used[0]!r} has one" if used else "each column once"
            yield ScenarioError("data.drop", list(self.drop), allowed)
        yield from super().problems()


class NoData(Section):
    """No data at all: a question of cost alone. Models have random weights, and votes agree by chance."""

    model_config = ConfigDict(json_schema_extra={APART: True})

    source: Literal["none"]
    classes: Annotated[int, Field(ge=2, le=10_000, strict=True)] = Field(description="classes that there are")
    agreement: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] = Field(
        description="how often a vote is the true class, independently of the others; else it is any other"
    )
    input_shape: Annotated[tuple[Count, ...], Field(min_length=1, max_length=3)] | None = Field(
        None, description="a sample's shape; by default what the first kind of model is usually given"
    )

    def problems(self) -> Iterator[ScenarioError]:
        """None by itself."""
        yield from ()


AnyData: TypeAlias = Annotated[
    Annotated[BundledData, Tag("BundledData")]
    | Annotated[ImageData, Tag("ImageData")]
    | Annotated[HeartData, Tag("HeartData")]
    | Annotated[ArrayData, Tag("ArrayData")]
    | Annotated[GivenData, Tag("GivenData")]
    | Annotated[TableData, Tag("TableData")]
    | Annotated[NoData, Tag("NoData")],
    kind_by("source", BundledData, ImageData, HeartData, ArrayData, GivenData, TableData, NoData),
]
