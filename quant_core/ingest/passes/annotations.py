"""Drop what only costs bytes: stack traces, documentation, and shapes that onnxruntime infers again at load."""

from __future__ import annotations

import onnx_ir as ir


class DropAnnotations(ir.passes.InPlacePass):
    """Clear documentation, metadata and inferred shapes inside the graph.

    The model's own metadata and all that is said about graph inputs, graph outputs and initializers stay.
    """

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
                    if not value.is_graph_output():
                        value.type, value.shape = None, None
        return ir.passes.PassResult(model, modified=True)


def _clear(value: ir.Value) -> None:
    value.metadata_props.clear()
    value.doc_string = None
