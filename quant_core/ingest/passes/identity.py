"""Let every reader of a tensor read the tensor itself, not a copy behind an Identity node."""

from __future__ import annotations

import onnx_ir as ir


class ResolveIdentity(ir.passes.InPlacePass):
    """Remove Identity nodes.

    Exporters write one per extra use of a shared weight, and behind them it looks like several tensors. Without them
    one initializer stays one parameter, and ties stay ties. onnx_ir's own pass is not used because it merges two
    graph outputs into one and lets a subgraph return a tensor of its parent, which onnxruntime refuses.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Remove them in place, in subgraphs too."""
        found = [
            node
            for node in ir.traversal.RecursiveGraphIterator(model.graph)
            if node.op_type == "Identity" and not node.domain
        ]
        resolved = [_resolve(node) for node in found]
        return ir.passes.PassResult(model, modified=any(resolved))


def _resolve(node: ir.Node) -> bool:
    source, result, graph = node.inputs[0], node.outputs[0], node.graph
    if source is None or graph is None:
        return False
    if not result.is_graph_output():
        result.replace_all_uses_with(source)
        graph.remove(node, safe=True)
        return True
    producer = source.producer()
    if producer is None or producer.graph is not graph or source.is_graph_output():
        # A graph output needs a node of its own graph, and a name of its own.
        return False
    name, kind, shape = result.name, result.type, result.shape
    result.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    source.name, source.type, source.shape = name, kind or source.type, shape or source.shape
    return True
