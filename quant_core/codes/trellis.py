"""Trellis-coded weights: codes of b bits that stand for values of b + 1 bits, half of which each code may choose from.

Along a path of codes c_0, c_1, ... with lowest bits u_i (0 before the first) the values are, in half steps,

    v_i = 2 (c_i xor u_{i-2} xor u_{i-3}) + u_{i-2},

so that of the residues modulo 4 each state of the last three bits leaves two: set partitioning with a convolutional
code of eight states (Ungerboeck, Channel coding with multilevel/phase signals, 1982; Marcellin and Fischer, Trellis
coded quantization of memoryless and Gauss-Markov sources, 1990). Paths run along the outputs of a layer, in strides, so
that many lie side by side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

TRELLIS_BITS = (2, 3, 4, 5)
"""Bits that are stored of a weight; its values take one more."""

FEWEST_OUTPUTS = 8
"""Outputs from which on a layer has paths: the first codes of each choose from fewer values."""

LONGEST = 32
"""Most codes of a path."""


def stride_of(outputs: int) -> int:
    """Give how far apart the codes of one path lie, which is how many paths lie side by side.

    Args:
        outputs: Number of outputs.

    Returns:
        At least 1; paths then have 32 codes at most.
    """
    return -(-outputs // LONGEST)


def trellis_values(codes: npt.NDArray[np.int8], axis: int) -> npt.NDArray[np.int8]:
    """Give the values that codes stand for.

    Args:
        codes: Codes of b bits.
        axis: Axis of the outputs.

    Returns:
        int8 values of b + 1 bits.
    """
    last = codes & np.int8(1)
    second, third = (_delayed(last, steps, axis) for steps in (2, 3))
    values: npt.NDArray[np.int8] = 2 * (codes ^ second ^ third) + second
    return values


def trellis_codes(values: npt.NDArray[np.int8], axis: int) -> npt.NDArray[np.int8]:
    """Give the codes of values that paths lead through; the inverse of `trellis_values`.

    Args:
        values: Values of b + 1 bits.
        axis: Axis of the outputs.

    Returns:
        int8 codes of b bits.

    Raises:
        ValueError: If no path leads through the values.
    """
    second = values & np.int8(1)
    half: npt.NDArray[np.int8] = ((values - second) >> 1) ^ second ^ _delayed(second, 1, axis)
    if (trellis_values(half, axis) != values).any():
        raise ValueError("no path of the trellis leads through these values")
    return half


def _delayed(bits: npt.NDArray[np.int8], steps: int, axis: int) -> npt.NDArray[np.int8]:
    shift = steps * stride_of(bits.shape[axis])
    late = np.zeros_like(bits)
    np.moveaxis(late, axis, 0)[shift:] = np.moveaxis(bits, axis, 0)[: max(0, bits.shape[axis] - shift)]
    return late
