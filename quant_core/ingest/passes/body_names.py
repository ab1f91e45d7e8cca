"""Give nodes inside the bodies of If, Loop and Scan names that no other node has."""

from __future__ import annotations

import onnx_ir as ir


class NameBodyNodes(ir.passes.InPlacePass):
    """Rename nodes of bodies that are called like another node: later stages look nodes up by name.

    Files may use a name in several graphs. Nodes of the main graph keep theirs.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename in place.

        Args:
            model: A model whose nodes have names, different ones in each graph.

        Returns:
            The same model.
        """
        taken = {node.name for node in model.graph}
        modified = False
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            if node.graph is model.graph:
                continue
            name, number = node.name, 0
            while node.name in taken:
                number += 1
                node.name = f"{name}_{number}"
            taken.add(node.name)
            modified |= number > 0
        return ir.passes.PassResult(model, modified=modified)
