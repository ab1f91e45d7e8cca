"""Let a Transpose between two Reshapes move blocks instead of single values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_integers
from quant_core.ingest.passes.constants import store_integers
from quant_core.ingest.passes.pieces import only_reader

_RANK = 5
"""Of the least Transpose that is looked at; 4 axes and fewer are how images and heads lie."""


class MergeAxes(ir.passes.InPlacePass):
    """Make one axis of those that a Transpose between two Reshapes keeps side by side; the first stays as it is.

    A shuffle of channels is `[n, g, c / g, h, w]` with its second and third axis exchanged; of `[n, g, c / g, h w]` it
    is the same. Behind an integer convolution, which writes channels last, onnxruntime exchanges the transpositions
    with the Reshape if it sees five axes, and moves bytes one by one: 432 us for 32 channels of 56 x 56. With four it
    takes 31, transpositions included (1.31, one thread).
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Merge in place, once constants are initializers."""
        merged = [
            _merge(node) for node in list(model.graph) if node.op_type == "Transpose" and not node.domain
        ]
        return ir.passes.PassResult(model, modified=any(merged))


def _merge(transpose: ir.Node) -> bool:
    before = None if transpose.inputs[0] is None else transpose.inputs[0].producer()
    behind = only_reader(transpose)
    order = transpose.attributes.get_ints("perm", ())
    if len(order) < _RANK or order[0] != 0 or before is None or only_reader(before) is not transpose:
        return False
    if behind is None or not (_is_reshape(before) and _is_reshape(behind)):
        return False
    target = _entries(behind.inputs[1])
    sizes = _entries(before.inputs[1])
    if target is None or 0 in target[1:] or sizes is None or len(sizes) != len(order):
        return False
    runs = _runs(order)
    shape = _merged(sizes, runs)
    if len(runs) == len(order) or shape is None:
        return False
    _set_shape(before, shape)
    transpose.attributes["perm"] = ir.AttrInt64s("perm", [sorted(runs).index(run) for run in runs])
    transpose.outputs[0].shape = None
    return True


def _is_reshape(node: ir.Node) -> bool:
    return node.op_type == "Reshape" and not node.domain and not node.attributes.get_int("allowzero", 0)


def _entries(value: ir.Value | None) -> list[int] | None:
    """Entries of a shape, -1 for a first one that is computed; None where more is unknown."""
    if value is None:
        return None
    stored = constant_integers(value)
    if stored is not None:
        return stored
    joined = value.producer()
    if joined is None or joined.op_type != "Concat" or joined.domain:
        return None
    rest = [constant_integers(part) for part in joined.inputs[1:]]
    if any(part is None for part in rest):
        return None
    return [-1, *(entry for part in rest if part is not None for entry in part)]


def _runs(order: Sequence[int]) -> list[list[int]]:
    """Axes that stay side by side, as the Transpose puts them; the first axis alone."""
    runs: list[list[int]] = [[order[0]]]
    for axis in order[1:]:
        if axis == runs[-1][-1] + 1 and axis != 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    return runs


def _merged(sizes: Sequence[int], runs: Sequence[list[int]]) -> list[int] | None:
    """Sizes of the merged axes; None where they cannot be told."""
    if 0 in sizes[1:] or sum(size == -1 for size in sizes) > 1:
        return None
    parts = [[sizes[axis] for axis in run] for run in sorted(runs)]
    return [-1 if -1 in part else math.prod(part) for part in parts]


def _set_shape(reshape: ir.Node, shape: Sequence[int]) -> None:
    result, graph = reshape.outputs[0], reshape.graph
    assert isinstance(graph, ir.Graph)  # only nodes of the main graph are rewritten
    result.shape = None
    name = f"{result.name}/merged_shape"
    while name in graph.initializers:
        name += "_"
    reshape.replace_input_with(1, store_integers(graph, name, shape))
