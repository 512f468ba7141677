"""`[data]`: the samples."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field

from capcsim.errors import ScenarioError
from capcsim.scenario.base import MILLION, Count, Positive, Section

MedMnist: TypeAlias = Literal[
    "pathmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist", "bloodmnist",
    "tissuemnist", "organamnist", "organcmnist", "organsmnist",
]  # fmt: skip
FolderSource: TypeAlias = Literal["mnist", "fashion_mnist", "cifar10", "svhn", "heart", MedMnist]
FileSource: TypeAlias = Literal["npz", "csv", "parquet"]


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


def check_data(data: Data) -> Iterator[ScenarioError]:
    """What cannot be, of the section alone."""
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
