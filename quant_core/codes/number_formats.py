"""Number formats of weights: what every code of a format stands for, and which code a value finds.

Integers are two's complement codes. The floating formats are minifloats of at most 8 bits, whose positive codes rise
with their values: E4M3 and E5M2 (Micikevicius et al., FP8 formats for deep learning, arXiv:2209.05433, table 1), E2M1
and the power-of-two scale E8M0 (OCP Microscaling Formats, version 1.0, tables 1 and 7).
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from quant_core.spec.weight_grid import WeightFormat

Minifloat = Literal["e4m3", "e5m2", "e2m1"]

_EXPONENT_BITS: dict[Minifloat, int] = {"e4m3": 4, "e5m2": 5, "e2m1": 2}
_MANTISSA_BITS: dict[Minifloat, int] = {"e4m3": 3, "e5m2": 2, "e2m1": 1}
# Codes after the largest finite one stand for infinity or NaN: none in E2M1, one in E4M3, four in E5M2.
_LARGEST_CODE: dict[Minifloat, int] = {"e4m3": 0x7E, "e5m2": 0x7B, "e2m1": 0x7}
_FURTHEST, _NEGLIGIBLE = 1.01, 1 / 256
"""By how much a number may become larger, unless it is so small beside the largest."""
_LOST_BY_HALF = 1e-3
_LEAST_NORMAL_HALF, _LARGEST_HALF = (
    float(np.finfo(np.float16).smallest_normal),
    float(np.finfo(np.float16).max),
)
_LAST_BITS = np.int32((1 << 13) - 1)
"""Bits of a float32 that float16 does not have."""
_ELEMENTS: dict[WeightFormat, Minifloat] = {
    "fp8_e4m3": "e4m3",
    "fp8_e5m2": "e5m2",
    "nvfp4": "e2m1",
    "mxfp4": "e2m1",
}


def element(name: WeightFormat) -> Minifloat | None:
    """Give the minifloat that a weight format is made of.

    Args:
        name: A weight format.

    Returns:
        Its element; None for integers.
    """
    return _ELEMENTS.get(name)


def mantissa_bits(element: Minifloat) -> int:
    """Give the number of mantissa bits that are stored.

    Args:
        element: The format.

    Returns:
        Their number.
    """
    return _MANTISSA_BITS[element]


@cache
def positive_values(element: Minifloat) -> npt.NDArray[np.float32]:
    """Give the finite values of the codes without a sign, rising.

    `2^(e - bias) (1 + m / 2^M)`, and `2^(1 - bias) m / 2^M` where e is 0, with bias `2^(E-1) - 1`.

    Args:
        element: The format.

    Returns:
        float32, the value of code k at index k; read-only.
    """
    stored = _MANTISSA_BITS[element]
    bias = (1 << (_EXPONENT_BITS[element] - 1)) - 1
    codes = np.arange(_LARGEST_CODE[element] + 1)
    exponent, mantissa = codes >> stored, (codes & ((1 << stored) - 1)) / (1 << stored)
    values = np.where(
        exponent > 0, np.ldexp(1 + mantissa, exponent - bias), np.ldexp(mantissa, 1 - bias)
    ).astype(np.float32)
    values.flags.writeable = False
    return values


@cache
def code_values(element: Minifloat) -> npt.NDArray[np.float32]:
    """Give the value of every code, the sign in its highest bit.

    Args:
        element: The format.

    Returns:
        float32 `[2^bits]`; NaN where a code is not finite; read-only.
    """
    half = 1 << (_EXPONENT_BITS[element] + _MANTISSA_BITS[element])
    values = np.full(2 * half, np.nan, dtype=np.float32)
    positive = positive_values(element)
    values[: len(positive)], values[half : half + len(positive)] = positive, -positive
    values.flags.writeable = False
    return values


def nearest_code(values: npt.NDArray[np.float32], element: Minifloat) -> npt.NDArray[np.uint8]:
    """Find the code nearest to each value: ties go to the even code, what is too large to the largest.

    Args:
        values: Finite float32 values of any shape.
        element: The format.

    Returns:
        uint8 codes in the same shape.
    """
    grid = positive_values(element)
    middles = (grid[:-1] + grid[1:]) / 2  # exact: neighbours differ in the last bit of a few
    size = np.abs(values)
    below, upto = np.searchsorted(middles, size, "left"), np.searchsorted(middles, size, "right")
    codes = np.where((below != upto) & (below % 2 == 1), upto, below)
    sign = 1 << (_EXPONENT_BITS[element] + _MANTISSA_BITS[element])
    signed: npt.NDArray[np.uint8] = (codes + sign * np.signbit(values)).astype(np.uint8)
    return signed


def half_from(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Take each value to the float16 number of the same sign that is next to it away from 0, or is it.

    Args:
        values: Finite float32 values of any shape.

    Returns:
        float32 values in the same shape; what float16 cannot reach stays as it is, and so does what it takes further
        than 1 %, below 6e-6, but for what is then still less than 1 / 256 of the largest.
    """
    size = np.abs(values, dtype=np.float32)
    if size.size and size.min() >= _LEAST_NORMAL_HALF and size.max() <= _LARGEST_HALF:
        bits = size.view(np.int32)
        rounded = ((bits + _LAST_BITS) & ~_LAST_BITS).view(np.float32)
        return np.copysign(rounded, values)
    with np.errstate(over="ignore"):
        half = size.astype(np.float16)
        half = np.where(half.astype(np.float32) < size, np.nextafter(half, np.float16(np.inf)), half)
    far = half.astype(np.float32) > np.maximum(_FURTHEST * size, _NEGLIGIBLE * size.max(initial=0))
    found: npt.NDArray[np.float32] = np.where(np.isfinite(half) & ~far, half, size).astype(np.float32)
    return np.copysign(found, values)


def half_nearest(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Take values to the nearest float16 numbers, where together they lose next to nothing by it.

    Args:
        values: Finite float32 values of any shape.

    Returns:
        float32 values in the same shape; all as they are where more than 1 / 1,000 of their norm would change, for some
        are too large or all too small.
    """
    with np.errstate(over="ignore"):
        found = values.astype(np.float16).astype(np.float32)
    lost = float(np.square(found - values, dtype=np.float64).sum())
    return found if lost <= _LOST_BY_HALF**2 * float(np.square(values, dtype=np.float64).sum()) else values
