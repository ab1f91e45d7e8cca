"""Let a product read a shared table itself instead of a transposed copy computed at run time."""

from __future__ import annotations

import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_tensor
from quant_core.ingest.find_layers import FLOAT_TYPES
from quant_core.ingest.passes.constants import store_integers


class ReadTiedTable(ir.passes.InPlacePass):
    """Rewrite `x @ transpose(W)` as Gemm with `transB` where W is stored once and has other readers.

    Language models tie their output layer to the embedding table. Folding the transposition would store the table
    twice; left alone it keeps the largest weight of the model from being quantized at all. Gemm wants matrices, so
    leading axes of x are merged around it.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place.

        Args:
            model: A model whose constants are initializers and are folded, with inferred shapes noted.

        Returns:
            The same model.
        """
        modified = False
        for node in list(model.graph):
            if node.op_type in {"MatMul", "Gemm"} and not node.domain:
                table = _transposed_table(node.inputs[1])
                if table is not None:
                    modified |= _read_directly(node, table, model.graph)
        return ir.passes.PassResult(model, modified=modified)


def _transposed_table(operand: ir.Value | None) -> ir.Value | None:
    """Give the constant matrix that an operand is the transposition of."""
    turn = operand.producer() if operand is not None else None
    table = turn.inputs[0] if turn is not None and turn.op_type == "Transpose" and not turn.domain else None
    tensor = constant_tensor(table)
    if turn is None or tensor is None or tensor.dtype not in FLOAT_TYPES or len(tensor.shape) != 2:
        return None
    return table if list(turn.attributes.get_ints("perm", [1, 0])) == [1, 0] else None


def _read_directly(node: ir.Node, table: ir.Value, graph: ir.Graph) -> bool:
    source = node.inputs[0]
    if source is None:
        return False
    if node.op_type == "Gemm":
        node.replace_input_with(1, table)
        node.attributes["transB"] = ir.AttrInt64("transB", 1 - node.attributes.get_int("transB", 0))
        return True
    if source.shape is not None and len(source.shape) < 2:
        return False
    assert table.const_value is not None  # checked by _transposed_table
    rows, columns = table.const_value.shape.numpy()
    if source.shape is not None and len(source.shape) == 2:
        nodes = [ir.node("Gemm", [source, table], {"transB": 1}, name=node.name)]
    else:
        nodes = _merge_leading_axes(node, source, table, rows, columns, graph)
    ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, [node.outputs[0]], nodes[-1].outputs)
    return True


def _merge_leading_axes(
    node: ir.Node, source: ir.Value, table: ir.Value, rows: int, columns: int, graph: ir.Graph
) -> list[ir.Node]:
    """Build reshape to a matrix, product, reshape back to the leading axes of the source."""
    prefix = node.name or node.outputs[0].name
    matrix_shape = store_integers(graph, f"{prefix}/matrix", [-1, columns])
    last = store_integers(graph, f"{prefix}/last", [rows])
    matrix = ir.node("Reshape", [source, matrix_shape], name=f"{prefix}/merge")
    product = ir.node("Gemm", [matrix.outputs[0], table], {"transB": 1}, name=node.name)
    leading = ir.node("Shape", [source], {"end": -1}, name=f"{prefix}/leading")
    target = ir.node("Concat", [leading.outputs[0], last], {"axis": 0}, name=f"{prefix}/target")
    result = ir.node("Reshape", [product.outputs[0], target.outputs[0]], name=f"{prefix}/split")
    return [matrix, product, leading, target, result]
