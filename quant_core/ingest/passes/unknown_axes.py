"""Treat axes of negative size as unknown."""

from __future__ import annotations

import onnx_ir as ir


class ForgetNegativeAxes(ir.passes.InPlacePass):
    """Drop the -1 that PaddlePaddle's exporter writes as the size of axes it does not know."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite declared shapes in place, in subgraphs and local functions too."""
        modified = False
        for graph in model.graphs():
            values = [*graph.inputs, *(output for node in graph for output in node.outputs)]
            for value in values:
                if value.shape is None or all(not isinstance(s, int) or s >= 0 for s in value.shape):
                    continue
                sizes = [None if isinstance(size, int) and size < 0 else size for size in value.shape]
                value.shape = ir.Shape(sizes)
                modified = True
        return ir.passes.PassResult(model, modified=modified)
