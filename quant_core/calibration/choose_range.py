"""Range of an activation grid by the name of a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from quant_core.calibration.activation_range import ActivationRange
from quant_core.calibration.entropy_range import entropy_range
from quant_core.calibration.minmax_range import minmax_range
from quant_core.calibration.output_range import OutputErrors, output_range
from quant_core.calibration.percentile_range import percentile_range
from quant_core.calibration.search_range import search_range
from quant_core.spec import RangeMethod

_CLIPPED_BITS = 8
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
    errors: OutputErrors | None = None,
) -> tuple[float, float]:
    """Choose the range of an activation grid.

    Args:
        observed: The distribution of the tensor.
        method: `output`, `mse`, `minmax`, `percentile` or `entropy`; above 8 bits, where clipping gains nothing that
            would show, all of them take the extremes, and twice as far where the codes suffice for that.
        bits: Bits of a code.
        errors: What errors of the tensor do to the outputs; `output` without it is `mse`, the others do not look at it.

    Returns:
        `low <= 0 <= high`, not both zero.
    """
    if bits > _CLIPPED_BITS:
        return _with_headroom(observed, 2**bits)
    if method == "output" and errors is not None:
        return output_range(observed, errors, 2**bits)
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
