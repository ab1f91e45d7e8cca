"""Tensors that integer kernels and operators in float both read: each side gets its own, and floats stay unrounded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import onnx_ir as ir

from quant_core.export.placement.code_flow import CodeFlow
from quant_core.export.placement.forms import Placement
from quant_core.export.placement.tensor_flow import captured_names, value_name
from quant_core.ingest.layer import Layer

_SUFFIX = ":codes"


def part_readers(model: ir.Model, layers: Sequence[Layer], placement: Placement) -> ir.Model:
    """Give integer kernels an Identity of each tensor that is computed in float and that others read as well.

    The grid then belongs to the Identity, and operators in float, subgraphs and outputs of the graph take the tensor as
    it was computed. It is rounded for the kernels anyway, so that this takes no time, and saves a dequantization.

    Args:
        model: The normalised model; left as it is.
        layers: Its layers.
        placement: How they run, and what is rounded.

    Returns:
        A copy with the Identities, or the model itself where there is no such tensor.
    """
    found = dict(_shared(model, CodeFlow(layers, placement)))
    if not found:
        return model
    parted = model.clone()
    graph = parted.graph
    nodes = {str(node.name): node for node in graph}
    values = {value_name(value): value for value in graph.inputs}
    values |= {str(value.name): value for node in graph for value in node.outputs}
    taken = {*nodes, *_names(parted)}
    first = graph[0]
    for name, readers in found.items():
        source = values[name]
        apart = _free(name, taken)
        taken.add(apart)
        output = ir.Value(name=apart, type=source.type, shape=source.shape)
        identity = ir.node("Identity", [source], outputs=[output], name=apart)
        maker = source.producer()
        if maker is None:
            graph.insert_before(first, identity)
        else:
            graph.insert_after(maker, identity)
        for reader, at in readers:
            nodes[reader].replace_input_with(at, output)
    return parted


def _shared(model: ir.Model, flow: CodeFlow) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Tensors of both kinds of readers, and the places where nodes read codes."""
    placement, captured = flow.placement, captured_names(model.graph)
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    for value in values:
        name, maker = str(value.name), value.producer()
        if name not in placement.points or name in placement.wide:
            continue
        if maker is not None and not flow.runs_in_float(maker):
            continue
        uses = list(value.uses())
        # Nodes inside bodies read floats whatever they are.
        in_codes = [
            (node, at) for node, at in uses if node.graph is model.graph and not flow.runs_in_float(node)
        ]
        others = len(in_codes) < len(uses) or value.is_graph_output() or name in captured
        if in_codes and others:
            yield name, [(str(node.name), at) for node, at in in_codes]


def _names(model: ir.Model) -> Iterator[str]:
    """Names of tensors, of those inside bodies too: these must not be made twice."""
    for graph in model.graphs():
        for value in (*graph.inputs, *graph.initializers.values()):
            yield str(value.name)
        for node in graph:
            yield from (str(value.name) for value in node.outputs)


def _free(name: str, taken: Collection[str]) -> str:
    name += _SUFFIX
    while name in taken:
        name += "_"
    return name
