"""What the sections of a scenario share: how they behave, how kinds are told apart, and the ranges of their numbers."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, model_validator

MILLION = 10**6
# Ranges are wide, but physical: what lies outside is a slip of the unit or of the finger.
Count: TypeAlias = Annotated[int, Field(ge=1, le=1000 * MILLION, strict=True)]
Few: TypeAlias = Annotated[int, Field(ge=1, le=MILLION, strict=True)]
Positive: TypeAlias = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False, strict=True)]
OneLine: TypeAlias = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)]
Price: TypeAlias = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False, strict=True)]
Seconds: TypeAlias = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False, strict=True)]
Probability: TypeAlias = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, strict=True)]
Noise: TypeAlias = Annotated[float, Field(ge=1e-3, le=1e5, allow_inf_nan=False, strict=True)]
Rate: TypeAlias = Annotated[float, Field(ge=1, le=1e15, allow_inf_nan=False, strict=True)]


APART = "apart"
"""The mark, in its schema, of a kind of a section that shares no key with the others."""


class Section(BaseModel):
    """A part of a scenario: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, found: Any) -> Any:
        """A key without a value is not there, as in TOML."""
        return (
            {key: value for key, value in found.items() if value is not None} if isinstance(found, Mapping) else found
        )


def tags(kind: type[Section], key: str) -> tuple[str, ...]:
    """What may stand at the key that tells this kind of a section from others."""
    return get_args(kind.model_fields[key].annotation)


def kind_by(key: str, *kinds: type[Section]) -> Any:
    """The mark of a union of sections that what stands at `key` tells apart; each is tagged with its class's name.

    Where no kind has what stands there, the first is tried: it complains about the key, and about all that is wrong
    whichever was meant.
    """
    names = {value: kind.__name__ for kind in kinds for value in tags(kind, key)}

    def choose(found: Any) -> str:
        if isinstance(found, Section):
            return type(found).__name__
        value = found.get(key) if isinstance(found, Mapping) else None
        return names.get(value, kinds[0].__name__) if isinstance(value, str) else kinds[0].__name__

    return Field(discriminator=Discriminator(choose), json_schema_extra={"discriminator": {"propertyName": key}})
