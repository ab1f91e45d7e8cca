"""How layers lie in the graph: which come first and last, and which read the same activation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir

from quant_core.ingest.layer import Layer
from quant_core.ingest.subgraphs import read_inside


def with_neighbours(layers: tuple[Layer, ...], graph: ir.Graph) -> tuple[Layer, ...]:
    """Mark the layers that no other layer feeds, those that feed no other, and those that share an input.

    Args:
        layers: Layers of the graph.
        graph: A sorted main graph.

    Returns:
        The same layers with `first`, `last` and `siblings`.
    """
    nodes = list(graph)
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
