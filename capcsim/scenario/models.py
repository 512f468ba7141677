"""`[models]`: what is trained."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from capcsim.scenario.base import Few, Section

NetworkKind: TypeAlias = Literal[
    "logistic", "mlp", "cryptonet-relu", "lenet", "vgg-5", "vgg-7", "resnet-8", "resnet-10"
]
TreesKind: TypeAlias = Literal["adaboost", "random-forest"]
ModelKind: TypeAlias = Literal[NetworkKind, TreesKind]
FROM_PYTHON = "python:"
"""With what the names of models begin that were handed over from Python, as objects."""
OwnKind: TypeAlias = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$",
        description="what makes an untrained model of the user's own",
        examples=["package.module:factory"],
    ),
]
Kind: TypeAlias = ModelKind | OwnKind


class Models(Section):
    """What the parties train; kinds are dealt out to the parties in turn."""

    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("logistic",)
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
