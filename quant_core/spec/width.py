"""Widths: what a layer can be given, as one number.

A width is the bits of a weight. Where a request leaves the bits of activations open, those that the layer reads come
with it: `1604` is a weight of 4 bits on activations of 16. A float weight computes on float activations: `32` stands
alone.
"""

from __future__ import annotations

from quant_core.spec.bits import format_bits

KERNEL_BITS = 8
"""Fewest bits of activations that a file can hold; fewer exist in simulation and in bit operations."""

_ACTIVATION = 100


def width_of(weight: int, activation: int | None) -> int:
    """Put bits together.

    Args:
        weight: Bits of the weight.
        activation: Bits of the activations it meets, or None where they are not open.

    Returns:
        The width.
    """
    return weight if activation is None else weight + _ACTIVATION * activation


def weight_of(width: int) -> int:
    """Read the bits of the weight.

    Args:
        width: A width.

    Returns:
        The bits.
    """
    return width % _ACTIVATION


def activation_of(width: int) -> int | None:
    """Read the bits of the activations.

    Args:
        width: A width.

    Returns:
        The bits; None where they are not open.
    """
    return width // _ACTIVATION or None


def format_width(width: int) -> str:
    """Write a width for people.

    Args:
        width: A width.

    Returns:
        Such as `4 bits` or `4 bits on 16-bit activations`.
    """
    activation = activation_of(width)
    if activation is None:
        return f"{format_bits(weight_of(width))} bits"
    bits = format_bits(activation)
    return f"{format_bits(weight_of(width))} bits on {bits if bits == 'float' else f'{bits}-bit'} activations"
