"""Bias correction for all rounding at once: what a whole plan adds to mean outputs is taken from the biases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from quant_core.calibration import Samples
from quant_core.codes import CorrectedBias, QuantizedWeight
from quant_core.ingest.layer import Layer
from quant_core.ingest.macs import affordable_samples
from quant_core.quantizers.bias_correction.input_means import find_bias
from quant_core.quantizers.chance import exceeds_chance
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.simulation.network import Simulation
from quant_core.quantizers.simulation.output_errors import error_falls, float_tensors

_MOST_SAMPLES = 64
_ENOUGH = 16
"""Samples that large networks are given."""
_TRIED_FROM = 12
"""Samples a quarter of which tells whether to go on."""
_MOST_MACS = 16e9
"""Multiply-accumulates in one run of all samples, beyond which there need be no more than enough."""
_FEWEST = 4
"""Of fewer samples the halves say nothing about each other."""
_ERRORS = 1.0
"""By how many of its standard errors the error must fall on samples that did not correct."""
_LOG_ERRORS = 2.0
"""The same for its logarithm, where an answer that tips over outweighs all other samples."""
_TINY = 1e-30

Vector = npt.NDArray[np.float64]
Weights = Mapping[str, QuantizedWeight]


def correct_means(
    network: FloatNetwork,
    graph: ir.Model,
    layers: Sequence[Layer],
    weights: Weights,
    samples: Samples,
    simulate: Callable[[Weights], Simulation],
) -> Weights | None:
    """Move biases so that layers give the means of the float network, rounded activations included.

    A layer with outputs y_q in the simulation and y in float, followed by an activation function a that is the identity
    between two limits, moves channel c by the Gauss-Newton step of the squared error behind a,

        `b_c -= sum_A (a(y_q) - a(y)) / |A|`, A the places where y_q lies between the limits,

    which is the difference of the means where there is no such function (Nagel et al., Data-free quantization,
    arXiv:1906.04721, section 4.2, measured). Layers follow each other within one run: each is measured with those
    before it corrected, by what their own batch showed. A step m with the standard error e over samples counts for
    `max(0, 1 - e^2 / m^2)`.

    One half of the samples corrects, and the other judges; where the relative squared error of the outputs falls there
    by more than its standard error, they change places. So they do where its logarithm, sample by sample, falls by more
    than two, and the error itself does not rise by more than one: the one line whose answer tips over does not decide
    about all others. Only where it does in all are biases corrected, by what both halves have shown. Of 12 samples or
    more, the half of each half tries it first, and where neither falls at all, that is the end. At most 64 samples are
    used, of large networks fewer.

    Args:
        network: The float network.
        graph: What its program was compiled from.
        layers: The layers to correct; those without a bias of their own or without codes stay as they are.
        weights: Layer name -> codes.
        samples: Calibration samples.
        simulate: Gives the network of a plan's weights, rounded activations and all.

    Returns:
        The weights with other biases; None where that does not help, or cannot be told.
    """
    samples = samples.spread(min(_MOST_SAMPLES, max(_ENOUGH, affordable_samples(layers, _MOST_MACS))))
    count = samples.count // samples.unit
    places = _places(graph, layers, weights)
    if not places or count < _FEWEST:
        return None
    plain = simulate(weights)

    def part(first: int, step: int) -> Samples:
        return samples.units(np.arange(first, count, step))

    def tried(fitting: Samples, judging: Samples) -> tuple[dict[str, _Seen], Vector]:
        shown = _watched(network, plain, places, fitting)
        corrected = plain.with_biases(_biases(_moved(weights, places, shown), places))
        return shown, error_falls(network, plain, corrected, judging)

    if count >= _TRIED_FROM and not (tried(part(0, 4), part(1, 4))[1].sum(1) > 0).any():
        return None
    seen = {name: _Seen() for name in places}
    falls = np.zeros((2, 0))
    for fitting, judging in ((0, 1), (1, 0)):
        shown, found = tried(part(fitting, 2), part(judging, 2))
        falls = np.concatenate([falls, found], 1)
        if not _helps(falls):
            return None
        seen = {name: sums.joined(shown[name]) for name, sums in seen.items()}
    return _moved(weights, places, seen)


@dataclass(eq=False)
class _Place:
    """Where a bias is added.

    Attributes:
        layer: Name of the layer.
        bias: Its bias in float.
        axis: Axis of the channels in its output.
        low: Where the activation function behind it begins to be the identity.
        high: Where that ends.
    """

    layer: str
    bias: CorrectedBias
    axis: int
    low: float
    high: float


def _places(graph: ir.Model, layers: Sequence[Layer], weights: Weights) -> dict[str, _Place]:
    """Output -> the layer that writes it."""
    nodes = {str(node.name): node for node in graph.graph}
    places = {}
    for layer in layers:
        bias = find_bias(graph, layer) if layer.name in weights else None
        if bias is None:
            continue
        output = nodes[layer.uses[0].node].outputs[0]
        if layer.op == "MatMul":
            ((add, _),) = output.uses()
            output = add.outputs[0]
        axis = 1 if layer.op == "Conv" else -1
        places[str(output.name)] = _Place(layer.name, bias, axis, *_identity(output))
    return places


def _identity(output: ir.Value) -> tuple[float, float]:
    """Where the activation function that alone reads a tensor is the identity."""
    uses = tuple(output.uses())
    node = uses[0][0] if len(uses) == 1 and not output.is_graph_output() else None
    if node is not None and node.op_type == "Relu":
        return 0.0, math.inf
    if node is None or node.op_type != "Clip":
        return -math.inf, math.inf
    given = [None if value is None else value.const_value for value in (*node.inputs[1:], None, None)]
    low, high = (None if value is None else float(value.numpy().item()) for value in given[:2])
    return (-math.inf if low is None else low), (math.inf if high is None else high)


@dataclass(eq=False)
class _Seen:
    """Sums over the places of each sample, `[N, C]`: of the differences, and of the places where they count."""

    differences: list[Vector] = field(default_factory=list)
    counts: list[Vector] = field(default_factory=list)

    def joined(self, other: _Seen) -> _Seen:
        """These samples and others."""
        return _Seen(self.differences + other.differences, self.counts + other.counts)

    def step(self, last: int | None = None) -> Vector:
        """By how much biases fall, `[C]`; judged by the last batches alone if a number is given."""
        start = 0 if last is None else -last
        difference, count = (np.concatenate(sums[start:]) for sums in (self.differences, self.counts))
        total, samples = np.maximum(count.sum(0), 1), len(count)
        mean: Vector = difference.sum(0) / total
        if samples < 2:
            return mean
        spread = ((difference - mean * count) ** 2).sum(0) * samples / (samples - 1) / total**2
        sure: Vector = np.maximum(0, 1 - spread / np.maximum(mean**2, _TINY))
        return mean * sure


def _watched(
    network: FloatNetwork, simulation: Simulation, places: Mapping[str, _Place], samples: Samples
) -> dict[str, _Seen]:
    """Find all steps in one run over the samples."""
    seen = {name: _Seen() for name in places}
    for batch in samples.batches(network.batch_size):
        expected = float_tensors(network.program, batch, places)
        hooks = {
            name: partial(_shift, seen=seen[name], place=place, expected=expected[name])
            for name, place in places.items()
        }
        simulation.tensors(batch.inputs, simulation.program.outputs, before=hooks)
    return seen


def _moved(weights: Weights, places: Mapping[str, _Place], seen: Mapping[str, _Seen]) -> Weights:
    """The weights with biases that have made their steps."""
    moved = dict(weights)
    for name, place in places.items():
        rounded = weights[place.layer]
        bias = rounded.bias or place.bias
        values = bias.values - seen[name].step().reshape(bias.values.shape)
        moved[place.layer] = replace(rounded, bias=CorrectedBias.stored(bias.name, values))
    return moved


def _biases(weights: Weights, places: Mapping[str, _Place]) -> dict[str, npt.NDArray[np.float32]]:
    """Initializer -> its values, of the layers that were moved."""
    found = (weights[place.layer].bias for place in places.values())
    return {bias.name: bias.values for bias in found if bias is not None}


def _shift(value: Tensor, *, seen: _Seen, place: _Place, expected: Tensor) -> Tensor:
    """Write down how far a layer's output lies off, and give it without that."""
    axis, low, high = place.axis % value.dim(), place.low, place.high
    inside = ((value > low) & (value < high)).to(value.dtype)
    difference = (value.clamp(low, high) - expected.clamp(low, high)) * inside
    for sums, terms in ((seen.differences, difference), (seen.counts, inside)):
        rows = terms.movedim(axis, -1).reshape(len(terms), -1, terms.shape[axis])
        sums.append(rows.sum(1).double().cpu().numpy())
    shape = [-1 if dim == axis else 1 for dim in range(value.dim())]
    return value - torch.from_numpy(seen.step(last=1)).to(value).reshape(shape)


def _helps(falls: Vector) -> bool:
    """Whether errors fall by more than chance, from what `error_falls` gives."""
    plain, logarithm = torch.from_numpy(falls)
    rises = exceeds_chance(-plain, _ERRORS)
    return exceeds_chance(plain, _ERRORS) or (exceeds_chance(logarithm, _LOG_ERRORS) and not rises)
