"""Range of an activation grid by the name of a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from quant_core.calibration.activation_range import ActivationRange
from quant_core.calibration.entropy_range import entropy_range
from quant_core.calibration.minmax_range import minmax_range
from quant_core.calibration.percentile_range import percentile_range
from quant_core.calibration.search_range import search_range
from quant_core.spec import RangeMethod

_CLIPPED_BITS = 8
_METHODS: Mapping[RangeMethod, Callable[[ActivationRange], tuple[float, float]]] = {
    "mse": search_range,
    "minmax": minmax_range,
    "percentile": percentile_range,
    "entropy": entropy_range,
}


def choose_range(observed: ActivationRange, method: RangeMethod, bits: int = 8) -> tuple[float, float]:
    """Choose the range of an activation grid.

    Args:
        observed: The distribution of the tensor.
        method: `mse`, `minmax`, `percentile` or `entropy`; above 8 bits, where clipping gains nothing that would
            show, all of them take the extremes.
        bits: Bits of a code.

    Returns:
        `low <= 0 <= high`, not both zero.
    """
    if bits > _CLIPPED_BITS:
        return minmax_range(observed)
    if method in {"mse", "entropy"}:
        return (search_range if method == "mse" else entropy_range)(observed, 2**bits)
    return _METHODS[method](observed)
