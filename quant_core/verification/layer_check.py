"""Whether every layer of a finished file computes what it was meant to, each by itself.

Each layer is given the input that onnxruntime gave it, so that differences do not add up on their way through the net.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant_core.codes import QuantizedWeight, channel_axes
from quant_core.errors import InternalError
from quant_core.export import Placement
from quant_core.ingest.layer import Layer
from quant_core.quantizers import Simulation
from quant_core.spec import FLOAT_BITS, format_bits
from quant_core.verification.inner_tensors import read_inner_tensors
from quant_core.verification.layer_runs import LayerRun, layer_runs
from quant_core.verification.session import Arrays

_FLOAT_TOLERANCE = 1e-3  # of the largest output; float kernels sum in orders of their own
_STEPS = 1.01
_FLIPS = 4  # inputs of one sum that may be rounded to the other side by a range of another last bit


def check_layers(
    path: Path, simulation: Simulation, placement: Placement, feeds: Arrays, *, literal: bool = False
) -> Arrays:
    """Compare each layer's output in onnxruntime with the engine's own arithmetic on the same input.

    A rounded output may differ by one step of its grid, where a value lies between two, and by what its bias loses as
    an integer, half of input step times weight step; a float output by the rounding of float sums, and where the input
    is rounded at run time by a few of its codes.

    Args:
        path: The exported file.
        simulation: The quantized network in the engine's own arithmetic.
        placement: How layers run.
        feeds: One batch: graph input name -> array.
        literal: Whether the file is run as it is written.

    Returns:
        What layers read and write, as onnxruntime computed it.

    Raises:
        InternalError: If a layer differs; names the worst one.
    """
    model, grids, weights = simulation.model, simulation.grids, simulation.codes
    runs = layer_runs(model, simulation.layers, placement)
    names = dict.fromkeys(name for each in runs for name in (*each.read, each.result))
    found = read_inner_tensors(path, model, names, placement, grids, feeds, literal=literal)
    worst, excess = None, 1.0
    for each in runs:
        fed = {name: found[name] for name in each.read}
        expected = simulation.tensors(fed, [each.result], settled=True)[each.result]
        allowed = _tolerance(each, placement, simulation, found[each.source], expected)
        difference = float((np.abs(found[each.result] - expected) / allowed).max(initial=0))
        difference = np.inf if np.isnan(difference) else difference
        if difference > excess:
            worst, excess = each, difference
    if worst is not None:
        bits = weights[worst.layer.name].bits if worst.layer.name in weights else FLOAT_BITS
        what = f"layer {worst.layer.name} ({worst.layer.op}, {format_bits(bits)} bits, {worst.form})"
        raise InternalError(
            f"{what} computes something else in onnxruntime than it was meant to, {excess:.3g} times what rounding "
            "explains; the file is not handed out."
        )
    return found


def _tolerance(
    each: LayerRun,
    placement: Placement,
    simulation: Simulation,
    source: NDArray[Any],
    expected: NDArray[Any],
) -> NDArray[Any] | float:
    if placement.is_rounded(each.result):
        step = simulation.grids[placement.aliases.get(each.result, each.result)].largest_step
        return _STEPS * (step + _bias_rounding(each, placement, simulation, expected))
    allowed = _FLOAT_TOLERANCE * float(np.abs(expected).max(initial=0)) + float(np.finfo(np.float32).tiny)
    if each.form in {"static", "dynamic", "block"}:
        span = max(float(source.max(initial=0)), 0.0) - min(float(source.min(initial=0)), 0.0)
        weight = simulation.codes[each.layer.name]
        if each.form == "block":  # kernels take zero points off sums: of all-zero weights rounding is left
            point = 2 ** (weight.bits - 1) * float(np.abs(weight.scale).max(initial=0))
            allowed += float(np.finfo(np.float32).eps) * point * span * source.shape[-1]
        return allowed + _FLIPS * span / 255 * _by_channel(each, _largest(each.layer, weight), expected)
    return allowed


def _largest(layer: Layer, weight: QuantizedWeight) -> NDArray[Any]:
    """The largest weight of each output channel, several matrices of a stack as one."""
    sizes = np.abs(weight.dequantize())
    channels = channel_axes(layer.axis)[-1:]
    return np.atleast_1d(
        sizes.max(axis=tuple(at for at in range(sizes.ndim) if channels and at not in channels))
    )


def _bias_rounding(
    each: LayerRun, placement: Placement, simulation: Simulation, expected: NDArray[Any]
) -> NDArray[Any] | float:
    """Half a unit of each channel's integer bias, laid out as the output."""
    source = placement.aliases.get(each.source, each.source)
    if each.form != "static" or source not in simulation.grids:
        return 0.0
    steps = np.abs(simulation.codes[each.layer.name].scale.reshape(-1))
    unit = 0.5 * simulation.grids[source].largest_step * steps
    return _by_channel(each, unit, expected)


def _by_channel(each: LayerRun, values: NDArray[Any], expected: NDArray[Any]) -> NDArray[Any] | float:
    """Lay out one value a channel as the output is; the largest where its axis is not known."""
    axis = 1 if each.layer.op in {"Conv", "ConvTranspose"} else expected.ndim - 1
    if axis >= expected.ndim or len(values) not in {1, expected.shape[axis]}:
        return float(values.max(initial=0))
    return values.reshape([-1 if at == axis else 1 for at in range(expected.ndim)])
