"""Biases as integer kernels hold them: whole numbers of input step times weight step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from quant_core.codes import ActivationGrid, QuantizedWeight
from quant_core.export import Placement
from quant_core.export.writing.bias_room import with_room_for_bias
from quant_core.ingest.layer import Layer
from quant_core.quantizers.bias_correction.input_means import find_bias
from quant_core.verification.layer_runs import layer_runs

_COARSE = 2.0
"""Steps of the output that a bias may be off before it is told."""


def with_integer_biases(
    model: ir.Model,
    layers: Sequence[Layer],
    weights: Mapping[str, QuantizedWeight],
    placement: Placement,
    grids: Mapping[str, ActivationGrid],
) -> tuple[dict[str, QuantizedWeight], tuple[str, ...]]:
    """Round the biases of layers on integer kernels, `b' = u round(b / u)` with `u = s_x s_w` for each channel.

    Next to nothing in most networks; where large weights cancel, or inputs reach far, u is coarser than the output.

    Args:
        model: The normalised graph.
        layers: Its layers.
        weights: Layer name -> codes and scales.
        placement: How layers run.
        grids: Tensor name -> grid, of tensors that are rounded.

    Returns:
        The weights with what their biases become, and names of the layers that lose more than two steps of their output
        by it. Layers that share a bias keep it.
    """
    found, coarse = dict(weights), []
    for run in layer_runs(model, layers, placement):
        source, result = (placement.aliases.get(name, name) for name in (run.source, run.result))
        if run.form != "static" or source not in grids:
            continue
        weight = weights[run.layer.name]
        own = find_bias(model, run.layer)
        bias = own and (weight.bias or own)
        if bias is None:
            continue
        step = float(grids[source].scale)
        exact = bias.values.astype(np.float64).reshape(-1)
        unit = step * with_room_for_bias(weight, bias.values, step).scale.reshape(-1).astype(np.float64)
        rounded = np.round(exact / unit) * unit
        values = rounded.astype(np.float32).reshape(bias.values.shape)
        found[run.layer.name] = replace(weight, bias=replace(bias, values=values))
        if result in grids and np.abs(rounded - exact).max(initial=0) > _COARSE * grids[result].largest_step:
            coarse.append(run.layer.name)
    return found, tuple(coarse)
