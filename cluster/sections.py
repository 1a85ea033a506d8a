"""What every section of a sweep file is made of: the base model and the types that sections share."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A frozen, strict model without room for unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


_UNITS = {"B": 1, **{f"{p}B": 1000 ** (k + 1) for k, p in enumerate("kMGT")}}
_UNITS |= {f"{p}iB": 1024 ** (k + 1) for k, p in enumerate("KMGT")}


def bytes_of(value: Any) -> Any:
    """A text like "8GB" as a number of bytes; anything else as it is.

    >>> bytes_of("8GB"), bytes_of("1.5 GiB"), bytes_of("8 apples")
    (8000000000, 1610612736, '8 apples')
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kKMGT]?i?B)", value) if isinstance(value, str) else None
    unit = _UNITS.get(match[2].replace("KB", "kB")) if match else None
    return value if match is None or unit is None else round(float(match[1]) * unit)


AsTuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
Units = Annotated[int, Field(ge=1, le=65_536)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, BeforeValidator(bytes_of, json_schema_input_type=int | str), Field(ge=2**20, le=2**60)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
