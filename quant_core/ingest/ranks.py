"""Ranks of tensors, as far as a graph tells them."""

from __future__ import annotations

import onnx_ir as ir

from quant_core.ingest.shape_inference import infer_shapes


def find_ranks(model: ir.Model) -> dict[str, int]:
    """Infer how many axes each tensor of the main graph has.

    Args:
        model: A model; shapes are inferred on a copy.

    Returns:
        Tensor name -> number of axes, for those that are known.
    """
    shaped = model.clone()
    for node in shaped.graph:
        for output in node.outputs:
            output.shape = None  # what an exporter noted may hold for its example only
    infer_shapes(shaped)
    values = [*shaped.graph.inputs, *(output for node in shaped.graph for output in node.outputs)]
    return {str(value.name): len(value.shape) for value in values if value.shape is not None}
