"""How layers lie in the graph: which come first, last and behind convolutions, and which read the same activation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir

from quant_core.ingest.layer import Layer
from quant_core.ingest.subgraphs import read_inside

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


def with_neighbours(layers: tuple[Layer, ...], graph: ir.Graph) -> tuple[Layer, ...]:
    """Mark the layers that no other layer feeds, those that feed no other, those that share an input, and others.

    What a MatMul gives, such as the residual sums of a vision transformer, was computed in float and has a range for
    each sample, even where convolutions lie as near.

    Args:
        layers: Layers of the graph.
        graph: A sorted main graph.

    Returns:
        The same layers with `first`, `last`, `behind_convolution` and `siblings`.
    """
    nodes = list(graph)
    convolved, multiplied = _nearest(nodes)
    owners = {use.output: layer.name for layer in layers for use in layer.uses}
    fed = _reached(nodes, owners, forward=True)
    feeding = _reached(reversed(nodes), owners, forward=False)
    readers: dict[str, list[str]] = {}
    for layer in layers:
        for name in layer.inputs:
            readers.setdefault(name, []).append(layer.name)
    return tuple(
        replace(
            layer,
            first=any(use.output not in fed for use in layer.uses),
            last=any(use.output not in feeding for use in layer.uses),
            behind_convolution=not convolved.isdisjoint(layer.inputs) and multiplied.isdisjoint(layer.inputs),
            siblings=tuple(
                dict.fromkeys(
                    other for name in layer.inputs for other in readers[name] if other != layer.name
                )
            ),
        )
        for layer in layers
    )


def _reached(nodes: Iterable[ir.Node], owners: dict[str, str], *, forward: bool) -> set[str]:
    """Outputs of layers that another layer feeds; backwards, those that another layer reads in turn."""
    touched: set[ir.Value] = set()
    found: set[str] = set()
    for node in nodes:
        # Constants feed nothing.
        read = (*node.inputs, *read_inside(node))
        inputs = [value for value in read if value is not None and value.const_value is None]
        before, after = (inputs, node.outputs) if forward else (node.outputs, inputs)
        layer = next((value.name for value in node.outputs if value.name in owners), None)
        reached = any(value in touched for value in before)
        if layer is not None and reached:
            found.add(layer)
        if layer is not None or reached:
            touched.update(after)
    return found


def _nearest(nodes: Iterable[ir.Node]) -> tuple[set[str], set[str]]:
    """Tensors that hang on a convolution, and on a MatMul, with neither of the two between."""
    convolved: set[str] = set()
    multiplied: set[str] = set()
    for node in nodes:
        outputs = {str(value.name) for value in node.outputs}
        inputs = {str(value.name) for value in node.inputs if value is not None}
        product = node.op_type in _CONVOLUTIONS or node.op_type == "MatMul"
        if node.op_type in _CONVOLUTIONS or (not product and not convolved.isdisjoint(inputs)):
            convolved |= outputs
        if node.op_type == "MatMul" or (not product and not multiplied.isdisjoint(inputs)):
            multiplied |= outputs
    return convolved, multiplied
