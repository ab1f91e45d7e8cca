"""Forget readers that are no longer part of the model."""

from __future__ import annotations

import onnx_ir as ir


class DropDeadUses(ir.passes.InPlacePass):
    """Detach what stands inside of removed control flow from the tensors around it.

    Removing an If or Loop detaches the node but not the nodes of its subgraphs. Their uses would keep a weight that
    only a dead branch shares from being a layer, and what they read from being removed.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Detach in place."""
        nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
        live = set(nodes)
        values = [value for node in nodes for value in node.outputs]
        for graph in model.graphs():
            values += [*graph.inputs, *graph.initializers.values()]
        dead = {(node, position) for value in values for node, position in value.uses() if node not in live}
        for node, position in dead:
            node.replace_input_with(position, None)
        return ir.passes.PassResult(model, modified=bool(dead))
