"""Which tensors a run holds at each step, and which layer's activation bits each of them has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from quant_core.ingest.find_layers import reads_whole
from quant_core.ingest.layer import Layer
from quant_core.ingest.subgraphs import read_inside

_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
_IN_PLACE = frozenset({"Relu", "Clip", "LeakyRelu"})


def live_tensors(graph: ir.Graph) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """List the tensors that are alive while each node runs, in execution order.

    A tensor lives from the node that writes it, a graph input from the start, to the last node that reads it, a graph
    output to the end. Weights and constants are none. Reshape, Flatten, Squeeze, Unsqueeze and Identity keep the memory
    of what they read; Relu, Clip and LeakyRelu write over what only they read.

    Args:
        graph: The graph; its nodes are in execution order.

    Returns:
        Node name and the tensors alive, each by the name of the first tensor in its memory.
    """
    nodes = list(graph)
    outputs = {value.name for value in graph.outputs}
    captured = {value.name for node in nodes for value in read_inside(node)}
    memory: dict[str, str] = {
        str(value.name): str(value.name) for value in graph.inputs if value.name not in graph.initializers
    }
    first = dict.fromkeys(memory, 0)
    last = dict.fromkeys(memory, 0)
    for step, node in enumerate(nodes):
        for value in (*node.inputs, *read_inside(node)):
            name = "" if value is None else str(value.name)
            if name in memory:
                last[memory[name]] = step
        source = node.inputs[0] if node.inputs else None
        folded = reads_whole(node)
        for value in node.outputs:
            if not value.name or value.const_value is not None or node.op_type == "Constant" or folded:
                continue
            if source is not None and _shares(node, source, memory, outputs | captured):
                memory[value.name] = memory[str(source.name)]
            else:
                memory[value.name] = value.name
                first[value.name] = step
            last[memory[value.name]] = step
    for output in outputs & memory.keys():
        last[memory[str(output)]] = len(nodes) - 1
    return tuple(
        (str(node.name), tuple(name for name in first if first[name] <= step <= last[name]))
        for step, node in enumerate(nodes)
    )


def activation_owners(graph: ir.Graph, layers: Iterable[Layer]) -> Mapping[str, str]:
    """Tell which layer's activation bits each tensor has.

    Those of the layer that reads it first, directly or past operators that are no layers; what no layer comes after has
    the bits of the layer that it comes from.

    Args:
        graph: The graph.
        layers: Its layers.

    Returns:
        Tensor name -> layer name; tensors that no layer is connected with are left out.
    """
    used = {use.node: (layer.name, use.input) for layer in layers for use in layer.uses}
    nodes = list(graph)
    readers: dict[str, str] = {}
    for node in reversed(nodes):
        beyond = next((readers[str(v.name)] for v in node.outputs if v.name in readers), None)
        for value in node.inputs:
            if value is None:
                continue
            layer, activation = used.get(str(node.name), (None, None))
            owner = layer if value.name == activation else None if layer is not None else beyond
            if owner is not None:
                readers[str(value.name)] = owner
    makers: dict[str, str] = {}
    for node in nodes:
        before = next((makers[str(v.name)] for v in node.inputs if v is not None and v.name in makers), None)
        made_by = used[str(node.name)][0] if str(node.name) in used else before
        if made_by is not None:
            makers |= {str(value.name): made_by for value in node.outputs}
    return makers | readers


def _shares(node: ir.Node, source: ir.Value, memory: Mapping[str, str], kept: set[str | None]) -> bool:
    name = str(source.name)
    if node.domain or name not in memory:
        return False
    if node.op_type in _VIEWS:
        return True
    alone = len(tuple(source.uses())) == 1 and name not in kept and source.producer() is not None
    return node.op_type in _IN_PLACE and alone and memory[name] == name
