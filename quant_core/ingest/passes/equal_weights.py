"""Let layers whose weights are equal share one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_tensor
from quant_core.ingest.find_layers import FLOAT_TYPES

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"}
_LEAST_WEIGHT = 64
_LEAST_TABLE = 16_384
"""Values of a table from which on the nodes that a product with it takes are worth it."""
_LOOKED_AT = 64


class ShareEqualWeights(ir.passes.InPlacePass):
    """Make one weight of those that hold the same values and are read in the same way.

    Exporters of torch store what a block multiplies by once for each time the block is run, and a table that the output
    layer is tied to once more, transposed. Such a product reads a Transpose of the table here, which `ReadTiedTable`
    resolves.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place, once constants are folded."""
        alike: dict[object, list[ir.Value]] = defaultdict(list)
        for value in model.graph.initializers.values():
            if _is_weight(value, model.graph):
                alike[_look(value)].append(value)
        modified = False
        for values in alike.values():
            kept: list[ir.Value] = []
            for value in values:
                if any(_share(first, value) for first in kept):
                    modified = True
                else:
                    kept.append(value)
            modified |= _tie(kept, model.graph)
        return ir.passes.PassResult(model, modified=modified)


def _is_weight(value: ir.Value, graph: ir.Graph) -> bool:
    tensor = constant_tensor(value)
    return (
        tensor is not None
        and tensor.dtype in FLOAT_TYPES
        and len(tensor.shape) >= 2
        and tensor.size >= _LEAST_WEIGHT
        and not value.is_graph_output()
        and bool(value.uses())
        and all(
            node.graph is graph and node.op_type in _LAYERS and not node.domain for node, _ in value.uses()
        )
    )


def _array(value: ir.Value) -> npt.NDArray[np.generic]:
    tensor = constant_tensor(value)
    assert tensor is not None  # checked by _is_weight
    return tensor.numpy()


def _look(value: ir.Value) -> object:
    """What equal weights have in common, and matrices with those that they are the transposition of."""
    array = _array(value)
    if array.ndim == 2:
        return array.dtype, tuple(sorted(array.shape)), array.diagonal()[:_LOOKED_AT].tobytes()
    return array.dtype, array.shape, array.reshape(-1)[:: max(1, array.size // _LOOKED_AT)].tobytes()


def _share(first: ir.Value, second: ir.Value) -> bool:
    """Let the readers of one weight read another, if both hold and are read as the same."""
    if _readings(first) != _readings(second) or not np.array_equal(_array(first), _array(second)):
        return False
    second.replace_all_uses_with(first)
    return True


def _readings(value: ir.Value) -> list[tuple[object, ...]]:
    """In what ways a weight is read, each of them once."""
    found = {
        (node.op_type, index, tuple(sorted((key, repr(each.value)) for key, each in node.attributes.items())))
        for node, index in value.uses()
    }
    return sorted(found, key=repr)


def _tie(values: Sequence[ir.Value], graph: ir.Graph) -> bool:
    """Let products read the table that rows are taken from, where they hold the same values."""
    tables = [value for value in values if _is_table(value)]
    tied = False
    for value in values:
        for table in tables if _is_product(value) else ():
            if np.array_equal(_array(table).T, _array(value)):
                _turn(table, value, graph)
                tied = True
                break
    return tied


def _is_table(value: ir.Value) -> bool:
    return (
        _array(value).ndim == 2
        and _array(value).size >= _LEAST_TABLE
        and all(
            node.op_type == "Gather" and index == 0 and node.attributes.get_int("axis", 0) == 0
            for node, index in value.uses()
        )
    )


def _is_product(value: ir.Value) -> bool:
    return all(
        index == 1
        and (
            (node.op_type == "MatMul" and (node.inputs[0].shape is None or len(node.inputs[0].shape) > 1))
            or (node.op_type == "Gemm" and not node.attributes.get_int("transB", 0))
        )
        for node, index in value.uses()
        if node.inputs[0] is not None
    )


def _turn(table: ir.Value, matrix: ir.Value, graph: ir.Graph) -> None:
    first = min((node for node, _ in matrix.uses()), key=list(graph).index)
    turn = ir.node("Transpose", [table], {"perm": [1, 0]}, name=f"{matrix.name}/turned")
    turn.outputs[0].type, turn.outputs[0].shape = matrix.type, matrix.shape
    graph.insert_before(first, turn)
    matrix.replace_all_uses_with(turn.outputs[0])
