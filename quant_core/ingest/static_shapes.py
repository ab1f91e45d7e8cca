"""Multiply-accumulates without running anything, where the graph fixes its shapes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from quant_core.ingest.layer import Layer
from quant_core.ingest.macs import with_shapes


def with_static_shapes(layers: tuple[Layer, ...], model: ir.Model) -> tuple[Layer, ...]:
    """Fill in the multiply-accumulates per sample from inferred shapes.

    Args:
        layers: Layers of the model.
        model: The normalised model; its first input axis counts samples.

    Returns:
        The same layers with `macs`; 0 for those whose shapes depend on more than the number of samples.
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
    common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(sized)
    shapes = {
        value.name or "": tuple(value.shape.numpy())
        for value in [*sized.graph.inputs, *(output for node in sized.graph for output in node.outputs)]
        if value.shape is not None and value.shape.is_static()
    }
    return tuple(
        with_shapes((layer,), model, shapes, batch)[0] if _known(layer, shapes) else layer for layer in layers
    )


def _known(layer: Layer, shapes: dict[str, tuple[int, ...]]) -> bool:
    return all(name in shapes for use in layer.uses for name in (use.input, use.output))
