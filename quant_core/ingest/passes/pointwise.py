"""Write a convolution over single places between two transpositions as the matrix product that it is."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quant_core.ingest.constant_tensors import own_constant
from quant_core.ingest.passes.constants import store_array
from quant_core.ingest.passes.pieces import only_reader

_TURNED = (0, 2, 1)
"""Rows of channels become channels of places, and back."""


class PointwiseToMatMul(ir.passes.InPlacePass):
    """Rewrite `T(Conv(T(x), w)) + b` with a kernel of one place as `x w^T + b`, rows of channels throughout.

    Keras' Conv1D of kernel 1 is exported so. A product needs no transpositions, and its input can be rounded at run
    time: DTLN's encoder of loud and silent frames, which are normalized behind it, was left at 22 dB by one range for
    all of them and has 36 dB as a product. Images stay convolutions, which write channels last anyway.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place; only the main graph, once constants are initializers."""
        found = [
            _rewrite(node, model.graph)
            for node in list(model.graph)
            if node.op_type == "Conv" and not node.domain
        ]
        return ir.passes.PassResult(model, modified=any(found))


def _rewrite(conv: ir.Node, graph: ir.Graph) -> bool:
    before = None if conv.inputs[0] is None else conv.inputs[0].producer()
    behind, weight = only_reader(conv), conv.inputs[1]
    tensor = own_constant(weight)
    if not _turns(before) or not _turns(behind) or tensor is None or not _is_pointwise(conv, tensor):
        return False
    assert before is not None  # it turns
    assert behind is not None
    assert weight is not None  # it holds the tensor
    matrix = np.ascontiguousarray(tensor.numpy()[:, :, 0].T)
    product = ir.node(
        "MatMul", [before.inputs[0], store_array(graph, f"{weight.name}/matrix", matrix)], name=str(conv.name)
    )
    nodes = [product]
    if len(conv.inputs) > 2 and conv.inputs[2] is not None:
        nodes.append(
            ir.node("Add", [product.outputs[0], conv.inputs[2]], name=f"{conv.outputs[0].name}/bias")
        )
    result, old = nodes[-1].outputs[0], behind.outputs[0]
    result.type, result.shape = old.type, old.shape
    ir.convenience.replace_nodes_and_values(graph, behind, [behind, conv], nodes, [old], [result])
    return True


def _turns(node: ir.Node | None) -> bool:
    return (
        node is not None
        and node.op_type == "Transpose"
        and not node.domain
        and tuple(node.attributes.get_ints("perm", ())) == _TURNED
    )


def _is_pointwise(conv: ir.Node, tensor: ir.TensorProtocol) -> bool:
    """Whether each place of the result is made of the one place of the input."""
    return (
        len(tensor.shape) == len(_TURNED)
        and tensor.shape[2] == 1
        and conv.attributes.get_int("group", 1) == 1
        and list(conv.attributes.get_ints("strides", [1])) == [1]
        and not any(conv.attributes.get_ints("pads", [0]))
    )
