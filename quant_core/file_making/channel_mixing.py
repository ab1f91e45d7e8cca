"""Plans whose layers give their channels two widths: shares of the loss, another plan, and its measured loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from quant_core.allocation.candidates import Candidates
from quant_core.allocation.channel_plan import ChannelPlan, plan_channels, told
from quant_core.allocation.plan_bits import Limits
from quant_core.allocation.plan_problem import BYTES, EFFECTIVE_BITS, PlanProblem
from quant_core.codes import NarrowChannels, QuantizedWeight
from quant_core.export.place import layer_form
from quant_core.export.placement.forms import Form
from quant_core.export.size.channels import bytes_apart, function_bytes
from quant_core.ingest import Layer
from quant_core.ingest.macs import affordable_samples
from quant_core.preparation import Prepared
from quant_core.quantizers.rounding.mixed_channels import at_width
from quant_core.quantizers.rounding.round_weights import RoundedWeights
from quant_core.sensitivity import Batch, Objective
from quant_core.sensitivity.estimators.channel_shares import channel_shares, confirmed_shares
from quant_core.spec import FLOAT_BITS, BitPlan, LayerPlan, QuantizeSpec
from quant_core.spec.trials import PlanTrial
from quant_core.spec.weight_grid import INT8_BITS
from quant_core.spec.width import stored_of
from quant_core.trials import PlanMeter, Settled

_MACS, _FEWEST, _MOST = 2e9, 4, 32
"""Multiply-accumulates of the samples that tell channels apart, and how many these are."""
_FORETOLD, _ERRORS = 0.8, 1.0
"""Where scores promise a gain of 1 dB, by how many standard errors of the difference the measured loss must be worse to
speak against it: one sample whose answer tips over can make up most of what is measured on few."""
_FORMS = ("static", "dynamic", "weight_only")
_MATRIX = 2
_NAMES = 6
"""Bytes by which names get longer where there are more of them."""
NAME = "two widths a layer"

Shares = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Mixed:
    """A settled plan and its channels.

    Attributes:
        settled: The plan.
        narrow: Layer name -> which of its channels take fewer bits; layers of one width are not named.
    """

    settled: Settled
    narrow: Mapping[str, NarrowChannels] = field(default_factory=dict)

    def weights(self, rounded: RoundedWeights) -> dict[str, QuantizedWeight]:
        """Take the codes of the plan.

        Args:
            rounded: Every layer at every width.

        Returns:
            Layer name -> codes, of the layers that are no float.
        """
        return _codes(self.settled.plan, self.narrow, rounded)


def find_shares(
    job: Prepared,
    spec: QuantizeSpec,
    objective: Objective,
    settled: Settled,
    rounded: RoundedWeights,
    meter: PlanMeter,
) -> Shares:
    """Find how the loss of layers spreads over their output channels, where channels may take two widths.

    Args:
        job: The prepared job.
        spec: The request.
        objective: The loss.
        settled: A plan, at whose widths layers are looked at.
        rounded: Every layer at every width.
        meter: Holds the samples; few of them are used, in two halves.

    Returns:
        Layer name -> share by channel; empty where the request, the runtime or the samples have none.
    """
    plain = spec.granularity == "channel" and spec.weight_format == "int"
    opened = spec.open_activations or spec.outlier_shares
    halves = _halves(meter.batches, job)
    if not (spec.mix_channels and job.target.mixes_channels and plain and halves) or opened:
        return {}
    weights = _codes(settled.plan, {}, rounded)
    layers = [
        layer
        for layer in job.layers
        if layer.name in weights
        and _has_channels(layer, weights[layer.name])
        and _form(layer, job, spec) in _FORMS
    ]
    first, second = (
        channel_shares(job.program, layers, objective, half, weights, spec.seed + number)
        for number, half in enumerate(halves)
    )
    return confirmed_shares(first, second)


def plan_by_channel(
    job: Prepared,
    spec: QuantizeSpec,
    problem: PlanProblem,
    settled: Settled,
    limits: Limits,
    shares: Shares,
    meter: PlanMeter,
) -> Mixed:
    """Plan again by channel, and keep that where the measured loss is no larger, or no surer to be so than the scores.

    Args:
        job: The prepared job.
        spec: The request.
        problem: Scores, candidates and costs.
        settled: The plan by layer.
        limits: Limits by cost.
        shares: Layer name -> share of its loss by channel.
        meter: Measures plans.

    Returns:
        The plan by channel, or that by layer.
    """
    plan = settled.plan
    apart = {layer.name: _apart(layer, job, shares) for layer in job.layers if layer.name in shares}
    function = function_bytes(job.target)
    problem = replace(problem, candidates=_as_fast(job, spec, problem, plan)) if shares else problem
    found = plan_channels(problem, plan.widths, limits, shares, apart, function) if shares else None
    if found is None or all(given.narrow is None for given in found.layers.values()):
        return Mixed(settled)
    narrow = {
        name: NarrowChannels(given.narrow, ~_largest(shares[name], given.wide))
        for name, given in found.layers.items()
        if given.narrow is not None
    }
    mixed = plan.model_copy(
        update={
            "layers": tuple(_told(layer, found, narrow, shares) for layer in plan.layers),
            "predicted_loss": sum(found.losses.values()),
            "predicted_bytes": round(found.costs[BYTES]),
            "optimal": False,
            "gap": None,
            "costs": plan.costs | {name: cost for name, cost in found.costs.items() if name in plan.costs},
        }
    )
    measured = meter.loss_of(lambda rounded: _codes(mixed, narrow, rounded))
    before, foretold = meter.loss(plan.widths), mixed.predicted_loss <= _FORETOLD * plan.predicted_loss
    chosen = measured.mean <= before.mean or (foretold and not before.beats(measured, _ERRORS))
    trial = PlanTrial(
        name=NAME,
        predicted_loss=mixed.predicted_loss,
        measured_loss=measured.mean,
        stderr=measured.stderr if np.isfinite(measured.stderr) else None,
        bytes=mixed.predicted_bytes,
        effective_bits=found.costs[EFFECTIVE_BITS],
        samples=meter.samples,
        chosen=chosen,
    )
    trials = tuple(old.model_copy(update={"chosen": old.chosen and not chosen}) for old in settled.trials)
    if not np.isfinite(measured.mean):
        return Mixed(settled)
    if not chosen:
        return Mixed(replace(settled, trials=(*trials, trial)))
    return Mixed(replace(settled, plan=mixed, trials=(*trials, trial)), narrow)


def _codes(
    plan: BitPlan, narrow: Mapping[str, NarrowChannels], rounded: RoundedWeights
) -> dict[str, QuantizedWeight]:
    widths = {name: stored_of(width) for name, width in plan.widths.items()}
    return {
        name: at_width(rounded[name], width, narrow.get(name))
        for name, width in widths.items()
        if width != FLOAT_BITS
    }


def _has_channels(layer: Layer, weight: QuantizedWeight) -> bool:
    """Whether the steps of a layer are those of its output channels, and one node reads it."""
    outputs = 0 if layer.op == "Conv" else weight.axis
    matrix = layer.op in {"MatMul", "Gemm"} and len(layer.shape) == _MATRIX
    return (
        (layer.op == "Conv" or matrix)
        and len(layer.uses) == 1
        and layer.uses[0].operand == 1
        and isinstance(weight.axis, int)
        and weight.axis == outputs
        and weight.suits_int8_kernels
    )


def _halves(batches: Sequence[Batch], job: Prepared) -> tuple[Batch, Batch] | None:
    """Two halves of the first samples that were scored; None of too few, and where the graph fixes their number."""
    wanted = min(max(affordable_samples(job.layers, _MACS), _FEWEST), _MOST)
    size = min(wanted, batches[0].size) // 2
    if job.samples.batch is not None or size < 1:
        return None
    return batches[0].part(0, size), batches[0].part(size, 2 * size)


def _form(layer: Layer, job: Prepared, spec: QuantizeSpec) -> Form:
    return layer_form(layer, job.model, 3, spec.default_activation_bits, job.target, spec)


def _as_fast(job: Prepared, spec: QuantizeSpec, problem: PlanProblem, plan: BitPlan) -> dict[str, Candidates]:
    """Leave out widths whose grid no integer kernel takes, of layers that the plan gives to one."""

    def form(layer: Layer, bits: int) -> Form:
        return layer_form(layer, job.model, bits, spec.default_activation_bits, job.target, spec)

    kept = dict(problem.candidates)
    for layer in job.layers:
        if form(layer, plan.bits[layer.name]) in {"static", "dynamic"}:
            bits = tuple(
                b for b in kept[layer.name].bits if b == FLOAT_BITS or form(layer, b) != "weight_only"
            )
            kept[layer.name] = replace(kept[layer.name], bits=bits)
    return kept


def _apart(layer: Layer, job: Prepared, shares: Shares) -> dict[int, float]:
    """Bits of the narrow channels -> bytes that two widths take beside the codes."""
    count = len(shares[layer.name])
    return {
        bits: bytes_apart(job.target, layer.weight, count, bits) + _NAMES
        for bits in job.candidates[layer.name].bits
        if bits < INT8_BITS
    }


def _largest(shares: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.bool_]:
    chosen = np.zeros(len(shares), dtype=np.bool_)
    chosen[np.argsort(-shares, kind="stable")[:count]] = True
    return chosen


def _told(
    layer: LayerPlan, found: ChannelPlan, narrow: Mapping[str, NarrowChannels], shares: Shares
) -> LayerPlan:
    given, few = found.layers[layer.name], narrow.get(layer.name)
    if few is None and given.bits == layer.bits:
        return layer
    mixed = {} if few is None else {"narrow_bits": few.bits, "narrow_share": few.share}
    if few is not None:
        mixed["expected_loss"] = found.losses[layer.name]
    count = 0 if few is None else len(shares[layer.name])
    reason = f"{told(given, count)}; by layer {layer.bits} bits: {layer.reason}"
    return layer.model_copy(update={"bits": given.bits, "reason": reason, **mixed})
