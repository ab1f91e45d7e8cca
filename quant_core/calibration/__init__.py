"""Sample inputs to batches, and what activations look like on them."""

from quant_core.calibration.activation_range import ActivationRange
from quant_core.calibration.choose_range import choose_range
from quant_core.calibration.load import load_samples
from quant_core.calibration.observe import RangeWatch, activation_ranges, ranges_in_parts
from quant_core.calibration.samples import Samples
from quant_core.calibration.search_range import search_range
from quant_core.calibration.split import split_samples

__all__ = [
    "ActivationRange",
    "RangeWatch",
    "Samples",
    "activation_ranges",
    "choose_range",
    "load_samples",
    "ranges_in_parts",
    "search_range",
    "split_samples",
]
