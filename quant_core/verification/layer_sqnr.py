"""Where error enters a quantized network, and how much has gathered at each layer."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quant_core.executor import Program
from quant_core.executor.layout import fast_layout
from quant_core.export import Placement
from quant_core.quantizers import Simulation
from quant_core.verification.differences import sqnr_db
from quant_core.verification.layer_runs import layer_runs
from quant_core.verification.session import Arrays


@dataclass(frozen=True)
class LayerNoise:
    """Signal-to-noise ratios at the output of a layer, in decibels; over all its uses together.

    Attributes:
        accumulated_db: Quantized network against float network, as onnxruntime ran it: the error of all layers up to
            here; None where the layer was given another number of rows, as experts are that rounding sends others to.
        own_db: This layer alone against itself in float, both on the input that the float network has: the error that
            enters here, by its weight and by the rounding of what it reads and writes. Both weights of a recurrent node
            have the error of the node.
    """

    accumulated_db: float | None
    own_db: float


def layer_sqnr(
    program: Program, simulation: Simulation, placement: Placement, feeds: Arrays, found: Arrays
) -> dict[str, LayerNoise]:
    r"""Measure :math:`10 \log_{10}(\sum y^2 / \sum (y - \hat y)^2)` at the output of every layer.

    Args:
        program: The float network.
        simulation: The quantized network in the engine's own arithmetic.
        placement: How layers run.
        feeds: One batch: graph input name -> array.
        found: What layers wrote when onnxruntime ran that batch.

    Returns:
        Layer name -> ratios.
    """
    runs = layer_runs(simulation.model, simulation.layers, placement)
    results = list(dict.fromkeys(each.result for each in runs))
    read = [name for each in runs for name in each.read]
    inner = [name for name in dict.fromkeys(read + results) if name not in feeds]
    tensors = {
        name: fast_layout(torch.from_numpy(np.ascontiguousarray(array))) for name, array in feeds.items()
    }
    with torch.no_grad():
        computed = program.evaluate(tensors, outputs=inner)
    plain: dict[str, NDArray[Any]] = {name: value.cpu().numpy() for name, value in computed.items()}
    plain |= {name: np.asarray(array) for name, array in feeds.items()}
    signal: dict[str, float] = defaultdict(float)
    gathered: dict[str, float] = defaultdict(float)
    own: dict[str, float] = defaultdict(float)
    resized: set[str] = set()
    for each in runs:
        alone = simulation.tensors({name: plain[name] for name in each.read}, [each.result])[each.result]
        reference, name = plain[each.result].astype(np.float64), each.layer.name
        signal[name] += float(np.square(reference).sum())
        if found[each.result].shape == reference.shape:
            gathered[name] += float(np.square(found[each.result] - reference).sum())
        else:
            resized.add(name)
        own[name] += float(np.square(alone.astype(np.float64) - reference).sum())
    return {
        layer.name: LayerNoise(
            accumulated_db=None
            if layer.name in resized
            else sqnr_db(signal[layer.name], gathered[layer.name]),
            own_db=sqnr_db(signal[layer.name], own[layer.name]),
        )
        for layer in simulation.layers
    }
