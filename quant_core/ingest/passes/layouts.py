"""Take out transpositions that undo each other, with what lies between them in the other layout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_integers, constant_tensor
from quant_core.ingest.passes.constants import store_array, store_integers
from quant_core.ingest.passes.layout_regions import (
    ALONG,
    MEANS,
    Order,
    Region,
    axes_read,
    ends_order,
    find_regions,
    given_back,
    inverse,
    needs_order,
    order_of,
    stands,
)

_TURNED = "@turned"


class MeetTranspositions(ir.passes.InPlacePass):
    """Let what runs between transpositions run without them, where fewer are left: `T^-1(f(T(x))) = f'(x)`.

    Graphs with channels last (of TensorFlow, TFLite, JAX) have a Transpose before and behind each convolution, and
    activation functions, padding, sums and means between them. Without them these meet the convolutions: a Clip
    becomes a convolution's own, a Pad its padding. Two that undo each other go where they meet, and a Pad in front of a
    Transpose changes places with it.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place.

        Args:
            model: A model whose constants are initializers, nodes in order.

        Returns:
            The same model.
        """
        regions = find_regions(model.graph)
        found = bool(regions)
        while regions:
            before = _transpositions(model.graph)
            for region in regions:
                if stands(region):
                    _turn_region(model.graph, region)
            fewer = _transpositions(model.graph) < before
            regions = find_regions(model.graph) if fewer else []
        met = [_undone(model.graph, node) for node in list(model.graph) if order_of(node) is not None]
        moved = [_pad_behind(model.graph, node) for node in list(model.graph) if order_of(node) is not None]
        return ir.passes.PassResult(model, modified=found or any(met) or any(moved))


def _transpositions(graph: ir.Graph) -> int:
    return sum(order_of(node) is not None for node in graph)


def _turn_region(graph: ir.Graph, region: Region) -> None:
    for node in region.nodes:
        _turn_constants(graph, node, region.order)
        for place, value in enumerate(node.inputs):
            front = None if value is None else value.producer()
            if value is None or front is None or front in region.nodes or constant_tensor(value) is not None:
                continue
            node.replace_input_with(place, front.inputs[0])
            if not value.uses() and not value.is_graph_output():
                graph.remove(front, safe=True)
    for node in region.nodes:
        if not ends_order(node):
            _turn_output(graph, node.outputs[0], region)


def _turn_constants(graph: ir.Graph, node: ir.Node, order: Order) -> None:
    """Bring what a node reads beside the transposed tensors into their order."""
    if node.op_type in MEANS:
        _read_integers(graph, node, 1, axes_read(node, order))
    elif node.op_type == "Pad":
        _turn_pads(graph, node, order)
    elif node.op_type == "Resize":
        _turn_scales(graph, node, order)
    else:
        if node.op_type in ALONG:
            node.attributes["axis"] = ir.AttrInt64("axis", order[node.attributes.get_int("axis", -1)])
        for place, value in enumerate(node.inputs):
            tensor = constant_tensor(value)
            if tensor is None or tensor.size <= 1:
                continue
            array = tensor.numpy()
            full = array.reshape([1] * (len(order) - array.ndim) + list(array.shape))
            turned = np.ascontiguousarray(full.transpose(inverse(order)))
            node.replace_input_with(
                place, store_array(graph, _name(graph, f"{node.outputs[0].name}/{place}"), turned)
            )


def _turn_pads(graph: ir.Graph, pad: ir.Node, order: Order) -> None:
    """Name the axes that are padded, as they lie on what was not transposed."""
    pads = constant_integers(pad.inputs[1]) or []
    held = pad.inputs[3] if len(pad.inputs) > 3 else None
    axes = list(range(len(order))) if held is None else constant_integers(held) or []
    before, behind = [0] * len(order), [0] * len(order)
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        before[order[axis]], behind[order[axis]] = begin, end
    if held is not None:
        pad.resize_inputs(3)
    _read_integers(graph, pad, 1, [*before, *behind])


def _turn_scales(graph: ir.Graph, resize: ir.Node, order: Order) -> None:
    """Bring scales, or sizes, into the order of what was not transposed."""
    for place, value in enumerate(resize.inputs[2:], 2):
        tensor = constant_tensor(value)
        if tensor is not None and tensor.size:
            turned = tensor.numpy()[list(inverse(order))]
            name = _name(graph, f"{resize.outputs[0].name}/{place}")
            resize.replace_input_with(place, store_array(graph, name, turned))


def _turn_output(graph: ir.Graph, value: ir.Value, region: Region) -> None:
    """Let those read a tensor that wanted it transposed back, and transpose it for the others."""
    node, old, shape = value.producer(), str(value.name), value.shape
    assert node is not None
    back = given_back(value, region.order)
    if needs_order(value, region):
        _transpose_for_others(graph, value, region, back)
    named = back[0].outputs[0].name if back else None
    for other in back:
        ir.convenience.replace_all_uses_with(other.outputs[0], value, replace_graph_outputs=True)
        graph.remove(other, safe=True)
    value.name = named or _name(graph, old)
    value.shape = None if shape is None else ir.Shape([shape[axis] for axis in inverse(region.order)])


def _transpose_for_others(graph: ir.Graph, value: ir.Value, region: Region, back: Sequence[ir.Node]) -> None:
    node = value.producer()
    assert node is not None
    turn = ir.node("Transpose", [value], {"perm": region.order}, name=f"{value.name}/transpose")
    result = turn.outputs[0]
    result.name, result.type, result.shape = value.name, value.type, value.shape
    graph.insert_after(node, turn)
    for reader, place in list(value.uses()):
        if reader is not turn and reader not in region.nodes and reader not in back:
            reader.replace_input_with(place, result)
    for place, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[place] = result


def _read_integers(graph: ir.Graph, node: ir.Node, place: int, numbers: Sequence[int]) -> None:
    name = _name(graph, f"{node.outputs[0].name}/{place}")
    node.replace_input_with(place, store_integers(graph, name, numbers))


def _name(graph: ir.Graph, name: str) -> str:
    """Name what is turned; a name stands for one layout, and the old one is that of the other."""
    name += _TURNED
    while name in graph.initializers:
        name += "_"
    return name


def _undone(graph: ir.Graph, transpose: ir.Node) -> bool:
    """Read what was transposed in place of what is transposed back."""
    value, result = transpose.inputs[0], transpose.outputs[0]
    front = None if value is None else value.producer()
    back, there = order_of(transpose), order_of(front)
    if value is None or front is None or back is None or there is None or result.is_graph_output():
        return False
    source = front.inputs[0]
    if source is None or back != inverse(there):
        return False
    ir.convenience.replace_all_uses_with(result, source)
    graph.remove(transpose, safe=True)
    if not value.uses() and not value.is_graph_output():
        graph.remove(front, safe=True)
    return True


def _pad_behind(graph: ir.Graph, transpose: ir.Node) -> bool:
    """Let a Pad and the only Transpose that reads it change places, so that it comes next to what follows."""
    order, value = order_of(transpose), transpose.inputs[0]
    pad = None if value is None else value.producer()
    if order is None or pad is None or value is None or pad.op_type != "Pad" or pad.domain:
        return False
    if (
        len(value.uses()) > 1
        or value.is_graph_output()
        or any(constant_tensor(read) is None for read in pad.inputs[1:] if read is not None)
    ):
        return False
    _turn_pads(graph, pad, inverse(order))
    transpose.replace_input_with(0, pad.inputs[0])
    graph.remove(pad)
    graph.insert_after(transpose, pad)
    result = transpose.outputs[0]
    ir.convenience.replace_all_uses_with(result, value, replace_graph_outputs=True)
    pad.replace_input_with(0, result)
    value.shape, value.name, result.name = result.shape, result.name, _name(graph, str(value.name))
    result.shape = None
    return True
