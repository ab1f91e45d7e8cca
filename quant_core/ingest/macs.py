"""Multiply-accumulates and activation sizes of each layer from the shapes that really occurred."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from quant_core.errors import InternalError
from quant_core.ingest.layer import RECURRENT, Layer, Use


def with_shapes(
    layers: tuple[Layer, ...], model: ir.Model, shapes: Mapping[str, tuple[int, ...]], batch: int
) -> tuple[Layer, ...]:
    """Fill in the multiply-accumulates and the elements read and written per sample.

    Conv: output elements * (input channels / groups) * kernel elements. ConvTranspose: input elements * (output
    channels / groups) * kernel elements. Gemm and MatMul: output elements * length of the inner dimension.
    LSTM, GRU and RNN: steps * weights, whatever the lengths of sequences. Gather: none.

    Args:
        layers: Layers of the model.
        model: The model they were found in.
        shapes: Shapes of the layers' input and output tensors in one run.
        batch: Samples in that run.

    Returns:
        The same layers with `macs`, `input_elements` and `output_elements`, summed over all uses.

    Raises:
        InternalError: If a needed shape is missing.
    """
    nodes = {output.name: node for node in model.graph for output in node.outputs}
    filled = []
    for layer in layers:
        missing = [name for use in layer.uses for name in (use.input, use.output) if name not in shapes]
        if missing:
            raise InternalError(f"no shape was captured for {', '.join(missing)} of layer {layer.name!r}")
        total = sum(_macs(layer, use, nodes[use.output], shapes) for use in layer.uses)
        filled.append(
            replace(
                layer,
                macs=round(total / batch),
                input_elements=round(sum(math.prod(shapes[name]) for name in layer.inputs) / batch),
                output_elements=round(sum(math.prod(shapes[name]) for name in layer.outputs) / batch),
            )
        )
    return tuple(filled)


def affordable_samples(layers: Sequence[Layer], macs: float, passes: float = 1) -> int:
    """Tell how many samples are worth their time, counted in arithmetic so that the answer never depends on speed.

    Args:
        layers: All layers of the network, with their multiply-accumulates.
        macs: Multiply-accumulates that the samples may take.
        passes: How often each goes through the network.

    Returns:
        `macs / (passes * macs of a sample)`, rounded down.
    """
    return int(macs / (max(1, sum(layer.macs for layer in layers)) * passes))


def _macs(layer: Layer, use: Use, node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> int:
    match use.op:
        case "Conv":
            return math.prod(shapes[use.output]) * math.prod(layer.shape[1:])
        case "ConvTranspose":
            return math.prod(shapes[use.input]) * math.prod(layer.shape[1:])
        case "Gemm":
            inner = layer.shape[1] if node.attributes.get_int("transB", 0) else layer.shape[0]
            return math.prod(shapes[use.output]) * inner
        case "MatMul":
            inner = layer.shape[-2] if use.operand == 1 else layer.shape[-1]
            return math.prod(shapes[use.output]) * inner
        case op if op in RECURRENT:
            return math.prod(shapes[use.input][:-1]) * layer.parameters
        case _:
            return 0
