"""Widths: what a layer can be given, as one number.

A width is the bits of a weight. Where a request leaves the bits of activations open, those that the layer reads come
with it: `1604` is a weight of 4 bits on activations of 16. Where it lets layers keep outliers apart, their share of the
weights comes with it in hundredths of a percent: `1500004` is a weight of 4 bits with 1.5 % of outliers. A float weight
computes on float activations: `32` stands alone.
"""

from __future__ import annotations

from quant_core.spec.bits import format_bits

KERNEL_BITS = 8
"""Fewest bits of activations that a file can hold; fewer exist in simulation and in bit operations."""

OUTLIERS = 10_000
"""Stands for outliers where functions of a file are listed by the bits that need them; the factor of their share."""

NARROW = 20_000
"""Stands for channels of fewer bits where functions of a file are listed by the bits that need them."""

TRELLIS = 30_000
"""Stands for a trellis where functions of a file are listed by the bits that need them."""

_ACTIVATION = 100
_SHARES = 10_000
"""Shares are counted in parts of this many."""


def width_of(weight: int, activation: int | None, sparse: float = 0.0) -> int:
    """Put bits together.

    Args:
        weight: Bits of the weight.
        activation: Bits of the activations it meets, or None where they are not open.
        sparse: Share of the weights that are kept apart.

    Returns:
        The width.
    """
    return weight + _ACTIVATION * (activation or 0) + OUTLIERS * round(sparse * _SHARES)


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
    return width % OUTLIERS // _ACTIVATION or None


def sparse_of(width: int) -> float:
    """Read the share of the weights that are kept apart.

    Args:
        width: A width.

    Returns:
        The share; 0 where there are none.
    """
    return width // OUTLIERS / _SHARES


def stored_of(width: int) -> int:
    """Leave out the bits of the activations, which no weight knows.

    Args:
        width: A width.

    Returns:
        The width that says how the weight is rounded and stored.
    """
    return width_of(weight_of(width), None, sparse_of(width))


def rank(width: int) -> tuple[int, float, int]:
    """Order widths: by the bits of the weight, then by outliers, then by the bits of the activations.

    Args:
        width: A width.

    Returns:
        What to sort by.
    """
    return weight_of(width), sparse_of(width), activation_of(width) or 0


def functions_of(width: int) -> frozenset[int]:
    """Name what a file may have to unpack for a width.

    Args:
        width: A width.

    Returns:
        The bits of the weight, and `OUTLIERS` where some are kept apart.
    """
    return frozenset({weight_of(width)} | ({OUTLIERS} if sparse_of(width) else set()))


def format_width(width: int) -> str:
    """Write a width for people.

    Args:
        width: A width.

    Returns:
        Such as `float`, `4 bits`, `4 bits and 1.5 % outliers` or `4 bits on 16-bit activations`.
    """
    share, activation = sparse_of(width), activation_of(width)
    words = format_bits(weight_of(width))
    if words != "float":
        words += " bits"
    if share:
        words += f" and {100 * share:g} % outliers"
    if activation is None:
        return words
    bits = format_bits(activation)
    return f"{words} on {bits if bits == 'float' else f'{bits}-bit'} activations"
