"""Make a graph that was exported for one sample a run take any number of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quant_core.ingest.batch.follow import follow
from quant_core.ingest.batch.layout import sliced_at
from quant_core.ingest.batch.operands import BatchBoundError, Place, Shape, constant, known_shape
from quant_core.ingest.layer import RECURRENT

_SUFFIX = "@free_batch"
_END = 2**63 - 1


@dataclass(frozen=True, eq=False)
class FreeBatch:
    """A graph whose batch is free.

    Attributes:
        model: The rewritten copy; nodes, tensors and weights keep their names, and tensors their memory.
        places: Tensor name -> where the batch is; tensors without one are the same for every sample.
    """

    model: ir.Model
    places: Mapping[str, Place]


def free_batch(model: ir.Model, shapes: Mapping[str, Shape]) -> FreeBatch:
    """Rewrite a copy of a graph so that its inputs may hold any number of samples.

    The axis that counts samples is followed from the inputs through every node. Constants that fix it are rewritten:
    shapes of Reshape and Expand, sizes of Resize, ends of Slice; constants that are joined to samples, and first
    states of recurrent layers, are repeated. Shapes may rest on the given ones, so the copy serves only samples of
    this size.

    Args:
        model: A normalised model whose inputs all have the batch, of 1, as their first axis; it is left as it is.
        shapes: Tensor name -> shape in a run of one sample, for graph inputs and node outputs.

    Returns:
        The copy.

    Raises:
        BatchBoundError: If a node ties samples together, or cannot be shown not to; names the node.
    """
    copy = model.clone()
    graph = copy.graph
    places = {value.name or "": Place(0) for value in graph.inputs}
    for node in list(graph):
        try:
            found = zip(node.outputs, follow(node, places, shapes), strict=True)
            places |= {value.name: place for value, place in found if place is not None and value.name}
            _rewrite(node, places, shapes)
            if any(
                places.get(value.name or "", Place(0)).outer > 1
                for value in node.outputs
                if value.is_graph_output()
            ):
                raise BatchBoundError("a graph output does not hold the samples one after the other")
        except BatchBoundError as error:
            name = node.name or node.outputs[0].name
            raise BatchBoundError(f"{node.op_type} {name!r}: {error}") from error
    for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]:
        if value.name and value.name in places and value.shape is not None:
            dims: list[int | ir.SymbolicDim] = list(value.shape.dims)
            dims[places[value.name].axis] = ir.SymbolicDim(None)
            value.shape = ir.Shape(dims)
    return FreeBatch(copy, places)


def _rewrite(node: ir.Node, places: Mapping[str, Place], shapes: Mapping[str, Shape]) -> None:
    output = node.outputs[0]
    if node.op_type in RECURRENT and any((value.name or "") in places for value in node.outputs):
        states = 0 if node.attributes.get_int("layout", 0) else 1
        for position in range(5, min(7, len(node.inputs))):
            _repeat(node, position, states, places, shapes)
    if not output.name or output.name not in places:
        return
    axis = places[output.name].axis
    if node.op_type == "Reshape":
        sizes = list(known_shape(output, shapes))
        sizes[axis] = -1
        node.attributes.pop("allowzero", None)
        _set(node, 1, sizes)
    elif node.op_type == "Expand":
        sizes = list(known_shape(output, shapes))
        sizes[axis] = 1
        _set(node, 1, sizes)
    elif node.op_type == "Resize" and len(node.inputs) > 3 and node.inputs[3] is not None:
        _resize(node, axis, known_shape(output, shapes))
    elif node.op_type == "Concat":
        for position in range(len(node.inputs)):
            _repeat(node, position, axis, places, shapes)
    elif node.op_type == "Slice":
        cut = sliced_at(node, axis, len(known_shape(output, shapes)))
        ends = constant(node, 2)
        if cut is not None and ends is not None:
            ends[cut] = _END
            _set(node, 2, ends)


def _set(node: ir.Node, position: int, numbers: list[int]) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)  # only nodes of the main graph are rewritten
    value = ir.val(f"{node.name}/{position}{_SUFFIX}", const_value=ir.tensor(np.array(numbers, np.int64)))
    graph.register_initializer(value)
    node.replace_input_with(position, value)


def _resize(node: ir.Node, batch: int, after: Shape) -> None:
    """Leave the batch out of the axes that get a size."""
    rank = len(after)
    named = [axis % rank for axis in node.attributes.get_ints("axes", range(rank))]
    if node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise BatchBoundError("the batch takes part in its aspect ratio")
    if node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise BatchBoundError("it names a region of the batch")
    node.replace_input_with(1, None)  # a region means nothing in the other modes
    kept = [axis for axis in named if axis != batch]
    node.attributes["axes"] = ir.AttrInt64s("axes", kept)
    _set(node, 3, [after[axis] for axis in kept])


def _repeat(
    node: ir.Node, position: int, axis: int, places: Mapping[str, Place], shapes: Mapping[str, Shape]
) -> None:
    """Repeat an operand that is the same for every sample as often as there are samples."""
    value = node.inputs[position]
    if value is None or value.name in places:
        return
    graph = node.graph
    assert isinstance(graph, ir.Graph)  # only nodes of the main graph are rewritten
    rank = len(known_shape(value, shapes))
    name = f"{node.name}/{position}{_SUFFIX}"
    count = ir.node("Shape", [graph.inputs[0]], attributes={"start": 0, "end": 1}, name=f"{name}/count")
    ones = [
        ir.val(f"{name}/ones{i}", const_value=ir.tensor(np.ones(length, np.int64)))
        for i, length in enumerate((axis, rank - axis - 1))
    ]
    for one in ones:
        graph.register_initializer(one)
    sizes = ir.node(
        "Concat", [ones[0], count.outputs[0], ones[1]], attributes={"axis": 0}, name=f"{name}/sizes"
    )
    repeated = ir.node("Expand", [value, sizes.outputs[0]], name=name)
    for made in (count, sizes, repeated):
        made.outputs[0].name = made.name
        graph.insert_before(node, made)
    node.replace_input_with(position, repeated.outputs[0])
