"""Shares of a whole as users write them: `0.15` or `"15%"`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from quant_core.spec.number import Real
from quant_core.spec.quoting import quote

_WRITTEN = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*(%)?\s*", re.IGNORECASE)


def read_share(value: Any) -> Any:
    """Read a share such as `0.15`, `"0.15"` or `"15%"`.

    Args:
        value: A number, or text.

    Returns:
        The number; anything that is no text unchanged, for pydantic to refuse.

    Raises:
        ValueError: If text cannot be read as a share.
    """
    if not isinstance(value, str):
        return value
    match = _WRITTEN.fullmatch(value)
    if match is None:
        raise ValueError(
            f"cannot read {quote(value)} as a share; write a number such as 0.9 or a percentage such as 90%"
        )
    return float(match[1]) / (100 if match[2] else 1)


Share = Annotated[
    Real, BeforeValidator(read_share, json_schema_input_type=Annotated[float, Field(ge=0, le=1)] | str)
]
"""A share of a whole; which ones make sense is for each field to say."""
