"""Bits of activations as users ask for them: one number for all layers, or several to choose from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from quant_core.spec.bits import FLOAT_BITS, WIDE_BITS, format_bits
from quant_core.spec.quoting import quote
from quant_core.spec.width import KERNEL_BITS

ACTIVATION_BITS = (4, KERNEL_BITS, WIDE_BITS, FLOAT_BITS)
"""What activations can be given; fewer than 8 bits in simulation alone."""


def read_activation_bits(value: Any) -> int | tuple[int, ...]:
    """Read what a user wrote.

    Args:
        value: A number, `"float"`, a list of such, or text with commas.

    Returns:
        One number that a file can hold; else the numbers to choose from, rising.

    Raises:
        ValueError: If there is none, or one that activations cannot be given.
    """
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    several = value if isinstance(value, list | tuple | set | frozenset) else [value]
    bits = [read_one_of(ACTIVATION_BITS, one) for one in several]
    if not bits:
        raise ValueError("activation_bits is empty; name 8, 16, float or several of them")
    chosen = tuple(sorted(set(bits)))
    return chosen[0] if len(chosen) == 1 and chosen[0] >= KERNEL_BITS else chosen


def read_one_of(choices: tuple[int, ...], value: Any) -> int:
    """Read one of the numbers that activations can be given.

    Args:
        choices: These numbers.
        value: A number, digits or `"float"`.

    Returns:
        The number.

    Raises:
        ValueError: If it is none of them.
    """
    words = {format_bits(bits): bits for bits in choices} | {str(bits): bits for bits in choices}
    found = words.get(value.strip().lower()) if isinstance(value, str) else value
    if type(found) is not int or found not in choices:
        known = ", ".join(map(format_bits, choices))
        raise ValueError(f"{quote(value)} is nothing that activations can be given; choose from {known}")
    return found


_Written = Literal[4, 8, 16, 32, "float"]
ActivationBits = Annotated[
    int | tuple[int, ...],
    BeforeValidator(read_activation_bits, json_schema_input_type=_Written | tuple[_Written, ...]),
]
