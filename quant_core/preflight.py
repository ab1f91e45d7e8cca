"""Look at a model and say what a job would find."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx_ir as ir

from quant_core.allocation.candidates import candidate_bits
from quant_core.allocation.file_costs import smallest_kept
from quant_core.export import predict_sizes
from quant_core.ingest import Layer, find_float_weights, find_layers, normalise, read_model, with_shapes
from quant_core.ingest.batch import BatchBoundError, free_batch
from quant_core.ingest.known_operators import all_known
from quant_core.ingest.passes.float_types import COMPUTED_IN_FLOAT32
from quant_core.ingest.static_shapes import Shapes, static_shapes
from quant_core.spec import Preflight, PreflightLayer, PreflightTensor, PreflightWeight, QuantizeSpec
from quant_core.spec.preflight import PreflightBatch, PreflightPart


def inspect_model(path: Path, data: Path | None = None) -> Preflight:
    """Inspect a model file.

    Nothing is run unless shapes cannot be inferred and either the inputs' sizes are fixed or samples are given: then
    one sample is run to look at them.

    Args:
        path: An ONNX model.
        data: Samples, for models whose inputs have open sizes.

    Returns:
        What it holds and what can be done with it.

    Raises:
        ModelError: If the file cannot be read as a model.
    """
    source = read_model(path, "keep")
    model = normalise(source.model)
    found = find_layers(model)
    unsupported = _unsupported(model)
    shapes = static_shapes(model)
    if not all(_known(layer, shapes) for layer in found) and not unsupported:
        shapes = _looked_up(model, shapes, data)
    known = tuple(layer for layer in found if _known(layer, shapes))
    sized = {layer.name: layer for layer in with_shapes(known, model, shapes.sizes, shapes.batch)}
    return Preflight(
        name=source.path.name,
        float_bytes=source.file_bytes,
        smallest_bytes=smallest_bytes(model, found),
        opset=source.model.graph.opset_imports.get("") or model.graph.opset_imports[""],
        normalised_opset=model.graph.opset_imports[""],
        computed_in_float32=model.meta.get(COMPUTED_IN_FLOAT32, ()),
        inputs=tuple(_tensor(value) for value in model.graph.inputs),
        outputs=tuple(_tensor(value) for value in model.graph.outputs),
        batch=_batch(model, shapes),
        layers=tuple(_layer(layer, sized.get(layer.name)) for layer in found),
        float_weights=tuple(
            PreflightWeight(
                name=weight.name,
                shape=weight.shape,
                parameters=math.prod(weight.shape),
                reason=weight.reason,
            )
            for weight in find_float_weights(model, found)
        ),
        quantized_parts=tuple(PreflightPart(**vars(part)) for part in source.quantized_parts),
        unsupported_operators=unsupported,
    )


def smallest_bytes(model: ir.Model, layers: tuple[Layer, ...]) -> int:
    """Predict the smallest budget that a job with default choices surely keeps.

    Args:
        model: A normalised model.
        layers: Its layers.

    Returns:
        Bytes: what the exporter would write, and room for zero points, which only calibration tells.
    """
    candidates = candidate_bits(layers, QuantizeSpec())
    widths = {name: choice.bits for name, choice in candidates.items()}
    sizes = predict_sizes(model, layers, widths, QuantizeSpec().default_activation_bits)
    return smallest_kept(candidates, sizes)


def _unsupported(model: ir.Model) -> tuple[str, ...]:
    if all_known(model):
        return ()
    # Asked only when needed: torch takes longer to load than all the rest takes together.
    from quant_core.executor import unsupported_operators

    return unsupported_operators(model)


def _looked_up(model: ir.Model, shapes: Shapes, data: Path | None) -> Shapes:
    """Run one sample and look, where inference does not tell; what was inferred where that cannot be done."""
    from quant_core.preparation.look import look_at_shapes

    seen = look_at_shapes(model, data)
    return shapes if seen is None else seen


def _known(layer: Layer, shapes: Shapes) -> bool:
    return all(name in shapes.sizes for use in layer.uses for name in (use.input, use.output))


def _layer(layer: Layer, sized: Layer | None) -> PreflightLayer:
    """A row of the table; `sized` is the layer with its arithmetic, None where shapes are not known."""
    return PreflightLayer(
        name=layer.name,
        op=layer.op,
        weight=layer.weight,
        shape=layer.shape,
        parameters=layer.parameters,
        macs=None if sized is None else sized.macs,
        input_elements=None if sized is None else sized.input_elements,
        output_elements=None if sized is None else sized.output_elements,
        uses=len(layer.uses),
        siblings=layer.siblings,
        first=layer.first,
        last=layer.last,
    )


def _batch(model: ir.Model, shapes: Shapes) -> PreflightBatch:
    shapes_of = [value.shape for value in model.graph.inputs if value.shape is not None]
    if any(not len(shape) for shape in shapes_of):
        return _by_runs("an input is a single number")
    firsts = {shape[0] if isinstance(shape[0], int) else None for shape in shapes_of}
    fixed = firsts - {None}
    if not fixed:
        return PreflightBatch(size=None, handling="free")
    if len(fixed) > 1:
        return _by_runs("the first axes of the inputs have different sizes")
    (size,) = fixed
    if size != 1:
        return PreflightBatch(size=size, handling="fixed", reason="the graph demands this number of samples")
    try:
        free_batch(model, shapes.sizes)
    except BatchBoundError as error:
        return PreflightBatch(size=1, handling="one by one", reason=str(error))
    return PreflightBatch(size=1, handling="made free")


def _by_runs(reason: str) -> PreflightBatch:
    told = f"{reason}; samples are whole runs of the graph, with one axis more in front of every input"
    return PreflightBatch(size=None, handling="unclear", reason=told)


def _tensor(value: ir.Value) -> PreflightTensor:
    kind = "unknown" if value.dtype is None else value.dtype.name.lower()
    if value.dtype is not None and not value.dtype.is_string():
        kind = np.dtype(value.dtype.numpy()).name
    shape = (
        None
        if value.shape is None
        else tuple(size if isinstance(size, int) else (size.value or "?") for size in value.shape.dims)
    )
    return PreflightTensor(name=value.name or "", type=kind, shape=shape)
