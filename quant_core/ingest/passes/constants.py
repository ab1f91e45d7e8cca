"""Compute at once what depends on constants alone, without ever making the model larger."""

from __future__ import annotations

import math
import re

import onnx_ir as ir
from onnxscript.optimizer._constant_folding import FoldConstantsPass

SMALL = 1024
"""Elements up to which a folded tensor may be larger than what it replaces."""

# Data movement and elementwise operators whose reference implementation in onnx is exact.
_EVALUATED = re.compile(
    r"Abs|Add|And|Cast|CastLike|Ceil|Clip|Concat|ConstantOfShape|CumSum|Div|Equal|"
    r"Erf|Exp|Expand|Flatten|Floor|Gather|GatherElements|GatherND|Greater|"
    r"GreaterOrEqual|Identity|IsInf|IsNaN|Less|LessOrEqual|Log|Max|Mean|Min|Mod|Mul|"
    r"Neg|NonZero|Not|OneHot|Or|Pow|Range|Reciprocal|ReduceL2|ReduceMax|ReduceMean|"
    r"ReduceMin|ReduceProd|ReduceSum|ReduceSumSquare|Reshape|ScatterElements|ScatterND|"
    r"Shape|Sigmoid|Sign|Size|Slice|Split|Sqrt|Squeeze|Sub|Sum|Tanh|Tile|Transpose|"
    r"Trilu|Unsqueeze|Where|Xor"
)


class FoldConstants(ir.passes.InPlacePass):
    """Fold shape arithmetic, weight arithmetic such as weight normalization, and If with a constant condition.

    A result larger than `SMALL` must replace constants of at least its size that nothing else reads: a transposed
    copy of a shared weight or an expanded table would cost more bytes than it saves nodes.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in place.

        Args:
            model: A model whose constants are initializers.

        Returns:
            The same model.
        """
        fold = FoldConstantsPass(
            shape_inference=True, input_size_limit=SMALL, output_size_limit=SMALL, should_fold=_should_fold
        )
        return ir.passes.PassResult(model, modified=bool(fold(model).modified))


def _should_fold(node: ir.Node) -> bool:
    if node.domain or not _EVALUATED.fullmatch(node.op_type) or len(node.outputs) != 1:
        return False
    # Evaluated first and measured later is too late for ConstantOfShape([10**12]).
    shape = node.outputs[0].shape
    if shape is None or not shape.is_static():
        return False
    elements = math.prod(shape.numpy())
    freed = sum(_size(value) for value in node.inputs if _is_sole_use(value))
    return elements <= max(SMALL, freed)


def _size(value: ir.Value | None) -> int:
    return value.const_value.size if value is not None and value.const_value is not None else 0


def _is_sole_use(value: ir.Value | None) -> bool:
    return value is not None and len(value.uses()) == 1 and not value.is_graph_output()
