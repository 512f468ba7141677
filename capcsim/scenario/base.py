"""What the sections of a scenario share: how they behave, and the ranges of their numbers."""

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

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


class Section(BaseModel):
    """A part of a scenario: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
