"""Drop what exporters write for debugging: stack traces and documentation strings cost bytes and say nothing."""

from __future__ import annotations

import onnx_ir as ir


class DropAnnotations(ir.passes.InPlacePass):
    """Clear documentation and metadata of nodes and tensors; the model's own metadata stay."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Clear in place, in subgraphs too.

        Args:
            model: Any model.

        Returns:
            The same model.
        """
        for graph in model.graphs():
            graph.metadata_props.clear()
            for value in [*graph.inputs, *graph.outputs, *graph.initializers.values()]:
                _clear(value)
            for node in graph:
                node.metadata_props.clear()
                node.doc_string = None
                for value in node.outputs:
                    _clear(value)
        return ir.passes.PassResult(model, modified=True)


def _clear(value: ir.Value) -> None:
    value.metadata_props.clear()
    value.doc_string = None
