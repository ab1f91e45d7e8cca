"""Infer shapes, without the detour by which declared sizes could fill the memory."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

LONGEST = 1 << 16
"""Elements of a vector up to which its values are followed; those of shapes have a few."""


def infer_shapes(model: ir.Model) -> None:
    """Note the shapes that follow from those of the inputs, and from sizes that the graph computes.

    To follow computed sizes, onnx keeps one entry for every element of every vector, and a file may declare any
    number of them. Where a vector is longer than any shape, computed sizes are not followed. Of bodies nothing is noted
    that `infer_types` does not note either.

    Args:
        model: The model; shapes are noted in place.
    """
    untyped = _untyped(model)
    common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    made = [output for node in ir.traversal.RecursiveGraphIterator(model.graph) for output in node.outputs]
    if all(_is_short(value) for value in (*model.graph.inputs, *made)):
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    _forget(untyped)


def infer_types(model: ir.Model) -> None:
    """Note the types that follow from those of the inputs, and shapes as far as no size is computed.

    Of inputs and outputs of bodies that say nothing of themselves nothing is noted: onnx takes those of a Loop that
    carries a sequence for tensors, and then refuses the model.

    Args:
        model: The model; types are noted in place.
    """
    untyped = _untyped(model)
    common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    _forget(untyped)


def _untyped(model: ir.Model) -> list[ir.Value]:
    bodies = model.graph.subgraphs()
    return [value for body in bodies for value in (*body.inputs, *body.outputs) if value.type is None]


def _forget(values: list[ir.Value]) -> None:
    for value in values:
        value.type = value.shape = None


def _is_short(value: ir.Value) -> bool:
    if value.shape is None or len(value.shape) != 1:
        return True
    size = value.shape[0]
    return not isinstance(size, int) or size <= LONGEST
