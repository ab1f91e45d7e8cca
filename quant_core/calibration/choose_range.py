"""Range of an activation grid by the name of a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from quant_core.calibration.activation_range import ActivationRange
from quant_core.calibration.entropy_range import entropy_range
from quant_core.calibration.minmax_range import minmax_range
from quant_core.calibration.percentile_range import percentile_range
from quant_core.calibration.search_range import range_error, search_range
from quant_core.spec import RangeMethod

_CLIPPED_BITS = 8
_LEAST_GAIN = 1.25
"""How many times smaller the error at the outputs must get. Most networks' best ranges promise 0.1 dB, which a few
samples cannot tell from chance; in front of a maximum over many places it is 3."""
_HEADROOM = 2.0
"""How much larger values may be than any that a sample gave. Clipping them would cost more than one bit of 16 does."""
_UNSEEN = 1e-6
"""Mean squared error of rounding, as a share of the mean square, from which on a bit of 16 counts."""
_METHODS: Mapping[RangeMethod, Callable[[ActivationRange], tuple[float, float]]] = {
    "output": search_range,
    "mse": search_range,
    "minmax": minmax_range,
    "percentile": percentile_range,
    "entropy": entropy_range,
}


def choose_range(
    observed: ActivationRange,
    method: RangeMethod,
    bits: int = 8,
    worth: npt.NDArray[np.float64] | None = None,
) -> tuple[float, float]:
    """Choose the range of an activation grid.

    Args:
        observed: The distribution of the tensor.
        method: `output`, `mse`, `minmax`, `percentile` or `entropy`; above 8 bits, where clipping gains nothing that
            would show, all of them take the extremes, and twice as far where the codes suffice for that.
        bits: Bits of a code.
        worth: What a squared error counts in each bin; `output` without it is `mse`, the others do not look at it.

    Returns:
        `low <= 0 <= high`, not both zero.
    """
    if bits > _CLIPPED_BITS:
        return _with_headroom(observed, 2**bits)
    if method == "output" and worth is not None:
        return _by_worth(observed, 2**bits, worth)
    if method in {"output", "mse", "entropy"}:
        return (entropy_range if method == "entropy" else search_range)(observed, 2**bits)
    return _METHODS[method](observed)


def _with_headroom(observed: ActivationRange, levels: int) -> tuple[float, float]:
    """The extremes, with headroom where rounding stays far below the values then, too."""
    low, high = minmax_range(observed)
    step = _HEADROOM * (high - low) / (levels - 1)
    middles = (observed.edges[1:] + observed.edges[:-1]) / 2
    power = float(observed.counts @ middles**2) / observed.count
    enough = step**2 / 12 <= _UNSEEN * power
    return (_HEADROOM * low, _HEADROOM * high) if enough else (low, high)


def _by_worth(observed: ActivationRange, levels: int, worth: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The range of least error at the outputs, where that is less by 1 dB than with the range of least error."""
    plain, weighed = search_range(observed, levels), search_range(observed, levels, worth)
    errors = [range_error(observed, *ends, levels, worth) for ends in (plain, weighed)]
    return weighed if errors[0] >= _LEAST_GAIN * errors[1] else plain
