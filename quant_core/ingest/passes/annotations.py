"""Drop what only costs bytes: stack traces, documentation, and shapes that onnxruntime infers again at load."""

from __future__ import annotations

import onnx_ir as ir

_EXPORTERS = "pkg."


class DropAnnotations(ir.passes.InPlacePass):
    """Clear documentation, metadata and inferred shapes inside the graph.

    The model's own metadata and what is said about its inputs and outputs stay, but for notes of exporters (`pkg.*`).
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Clear in place, in subgraphs too."""
        interface = {*model.graph.inputs, *model.graph.outputs}
        for value in interface:
            for key in [key for key in value.metadata_props if key.startswith(_EXPORTERS)]:
                del value.metadata_props[key]
        for graph in model.graphs():
            graph.metadata_props.clear()
            for value in {*graph.inputs, *graph.outputs, *graph.initializers.values()} - interface:
                _clear(value)
            for node in graph:
                node.metadata_props.clear()
                node.doc_string = None
                for value in node.outputs:
                    if value not in interface:
                        _clear(value)
                    if not value.is_graph_output():
                        value.type, value.shape = None, None
        return ir.passes.PassResult(model, modified=True)


def _clear(value: ir.Value) -> None:
    value.metadata_props.clear()
    value.doc_string = None
