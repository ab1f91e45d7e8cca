"""Bit-widths as users write them and as the engine counts them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from quant_core.spec.quoting import quote

FLOAT_BITS = 32
"""Stands for "kept in float" wherever a number of bits is expected."""

WIDE_BITS = 16
"""Activations that are rounded for a layer that computes in float."""

WEIGHT_BITS = (2, 3, 4, 5, 6, 8, FLOAT_BITS)
"""Every choice a weight can be given."""

DEFAULT_WEIGHT_BITS = (2, 3, 4, 5, 6, 8)
"""Float is left out: next to eight bits it buys next to nothing and costs the integer kernel."""


def parse_bits(value: Any) -> Any:
    """Turn `"float"` into `FLOAT_BITS` and digits into an integer; leave what is no text to pydantic.

    Args:
        value: A bit-width as written by a user.

    Returns:
        The bit-width as an integer where it was text.

    Raises:
        ValueError: If text cannot be read as a bit-width.
    """
    if isinstance(value, str):
        text = value.strip().lower()
        if text == "float":
            return FLOAT_BITS
        if text.isdecimal() and len(text) <= len(str(FLOAT_BITS)):
            return int(text)
        raise ValueError(_unknown_bits(quote(value)))
    if isinstance(value, bool | list | dict):
        raise ValueError(_unknown_bits(quote(value)))
    return value


def format_bits(bits: int) -> str:
    """Write a bit-width for people: `FLOAT_BITS` becomes `float`.

    Args:
        bits: One of `WEIGHT_BITS`.

    Returns:
        The bit-width as text.
    """
    return "float" if bits == FLOAT_BITS else str(bits)


Bits = Annotated[
    int, BeforeValidator(parse_bits, json_schema_input_type=Literal[2, 3, 4, 5, 6, 8, 32, "float"])
]


def known_bits(bits: int) -> int:
    """Refuse a bit-width that weights cannot be given.

    Args:
        bits: A bit-width.

    Returns:
        The same.

    Raises:
        ValueError: If it is none of `WEIGHT_BITS`.
    """
    if bits not in WEIGHT_BITS:
        raise ValueError(_unknown_bits(quote(bits)))
    return bits


def _unknown_bits(written: str) -> str:
    floating = "; floating formats are asked for by weight_format" if "fp" in written.lower() else ""
    choices = ", ".join(map(format_bits, WEIGHT_BITS))
    return f"{written} is not a supported bit-width; choose from {choices}{floating}"
