"""The constant that is added to what a layer multiplies."""

from __future__ import annotations

import onnx_ir as ir

from quant_core.ingest.constant_tensors import own_constant
from quant_core.ingest.layer import Layer


def added_bias(model: ir.Model, layer: Layer) -> ir.Value | None:
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
    readers = model.graph.initializers[layer.weight].uses()
    node = next(node for node, _ in readers if node.name == layer.uses[0].node)
    if node.op_type not in {"Conv", "Gemm", "MatMul"}:
        return None
    if node.op_type == "MatMul":
        value = _added_constant(node)
        outputs = layer.shape[-1]
    else:
        value = node.inputs[2] if len(node.inputs) > 2 else None
        outputs = layer.shape[0] if layer.op == "Conv" or layer.axis == 0 else layer.shape[-1]
    array = own_constant(value)
    if array is None:
        return None
    if node.op_type == "Gemm" and any(
        node.attributes.get_float(key, 1.0) != 1.0 for key in ("alpha", "beta")
    ):
        return None
    if array.dtype != ir.DataType.FLOAT or array.size != outputs or tuple(array.shape)[-1:] != (outputs,):
        return None
    return value


def _added_constant(node: ir.Node) -> ir.Value | None:
    uses = tuple(node.outputs[0].uses())
    if len(uses) != 1 or uses[0][0].op_type != "Add" or node.outputs[0].is_graph_output():
        return None
    add, position = uses[0]
    return add.inputs[1 - position]
