"""Bias correction: what rounding adds to a layer's mean output is taken from its bias."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from quant_core.codes import CorrectedBias, QuantizedWeight
from quant_core.ingest.layer import Layer
from quant_core.quantizers.input_moments import Moments
from quant_core.quantizers.rows import to_rows


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
    shift = (error * moments.mean.cpu()[:, None, :]).sum(2).flatten().numpy()
    return CorrectedBias(bias.name, (bias.values - shift.reshape(bias.values.shape)).astype(np.float32))


def find_bias(model: ir.Model, layer: Layer) -> CorrectedBias | None:
    """Find the constant that is added to a layer's output and to nothing else.

    Args:
        model: The normalised graph.
        layer: A layer of it.

    Returns:
        The bias input of a Conv or Gemm, or the constant added to a MatMul; None where there is none, where it is
        shared, as by a stack of matrices, or where it does not hold one float32 value for each output.
    """
    if len(layer.uses) != 1 or layer.op == "ConvTranspose" or layer.matrices > 1:
        return None
    node = next(node for node in model.graph if node.name == layer.uses[0].node)
    if node.op_type == "MatMul":
        value = _added_constant(node)
        outputs = layer.shape[-1]
    else:
        value = node.inputs[2] if len(node.inputs) > 2 else None
        outputs = layer.shape[0] if layer.op == "Conv" or layer.axis == 0 else layer.shape[-1]
    if (
        value is None
        or not value.is_initializer()
        or value.const_value is None
        or len(value.uses()) != 1
        or value.is_graph_output()
    ):
        return None
    if node.op_type == "Gemm" and any(
        node.attributes.get_float(key, 1.0) != 1.0 for key in ("alpha", "beta")
    ):
        return None
    array = value.const_value.numpy()
    if array.dtype != np.float32 or array.size != outputs or array.shape[-1:] != (outputs,):
        return None
    return CorrectedBias(str(value.name), np.array(array))


def _added_constant(node: ir.Node) -> ir.Value | None:
    uses = tuple(node.outputs[0].uses())
    if len(uses) != 1 or uses[0][0].op_type != "Add" or node.outputs[0].is_graph_output():
        return None
    add, position = uses[0]
    return add.inputs[1 - position]
