"""Shapes without running anything, where the graph fixes them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from quant_core.ingest.shape_inference import infer_shapes


@dataclass(frozen=True)
class Shapes:
    """Shapes of tensors in one run.

    Attributes:
        sizes: Tensor name -> shape, for those that are known.
        batch: Samples in that run.
    """

    sizes: dict[str, tuple[int, ...]]
    batch: int


def static_shapes(model: ir.Model) -> Shapes:
    """Infer the shapes that depend on nothing but the number of samples.

    Args:
        model: A normalised model; its first input axis counts samples.

    Returns:
        Shapes for the batch the graph demands, or for one sample.
    """
    sized = model.clone()
    batch = 1
    for value in sized.graph.inputs:
        if value.shape is not None and len(value.shape):
            first = value.shape[0]
            batch = first if isinstance(first, int) else 1
            value.shape = ir.Shape([batch, *value.shape.dims[1:]])
    for node in sized.graph:
        for output in node.outputs:
            # What the exporter noted is in terms of its own symbols.
            output.shape = None
    infer_shapes(sized)
    sizes = {
        value.name or "": tuple(value.shape.numpy())
        for value in [*sized.graph.inputs, *(output for node in sized.graph for output in node.outputs)]
        if value.shape is not None and value.shape.is_static()
    }
    return Shapes(sizes, batch)
