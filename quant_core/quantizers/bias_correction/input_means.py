"""Bias correction: what rounding adds to a layer's mean output is taken from its bias."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from quant_core.codes import CorrectedBias, QuantizedWeight
from quant_core.ingest.added_bias import added_bias
from quant_core.ingest.layer import Layer
from quant_core.quantizers.moments.input_moments import Moments
from quant_core.quantizers.moments.rows import to_rows


def corrected_bias(
    layer: Layer,
    weight: npt.NDArray[np.floating],
    rounded: QuantizedWeight,
    moments: Moments,
    bias: CorrectedBias,
) -> CorrectedBias:
    """Move a bias so that the layer's mean output stays what it was.

    `b' = b - (Q(W) - W) E[x]`, with E[x] the mean input column (Nagel et al., Data-free quantization,
    arXiv:1906.04721, section 4.2, with the mean measured).

    Args:
        layer: A Conv, Gemm or MatMul.
        weight: Its float weight.
        rounded: Its codes and scales.
        moments: Moments of its input.
        bias: The float bias.

    Returns:
        The bias to use with these codes.
    """
    error = to_rows(layer, rounded.dequantize() - np.asarray(weight, dtype=np.float32))
    shift = (error @ moments.mean.cpu()[:, :, None]).flatten().numpy()
    return CorrectedBias.stored(bias.name, bias.values - shift.reshape(bias.values.shape))


def find_bias(model: ir.Model, layer: Layer) -> CorrectedBias | None:
    """Copy a layer's `added_bias`, to be corrected.

    Args:
        model: The normalised graph.
        layer: A layer of it.

    Returns:
        The bias; None where none may change.
    """
    value = added_bias(model, layer)
    if value is None or value.const_value is None:
        return None
    return CorrectedBias(str(value.name), np.array(value.const_value.numpy()))
