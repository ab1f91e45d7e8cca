"""Rounding that follows: each layer is rounded for what the rounded layers before it give, not the float network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quant_core.calibration import Samples
from quant_core.codes import CorrectedBias, QuantizedWeight
from quant_core.quantizers.bias_correction.input_means import corrected_bias
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.following.float_columns import MOST_COLUMNS, FloatColumns, float_columns
from quant_core.quantizers.following.places import FollowedPlace, fitting_samples, followed_samples
from quant_core.quantizers.following.refit import Columns, refit
from quant_core.quantizers.moments.input_columns import columns_at
from quant_core.quantizers.moments.rows import from_rows, rows_shape
from quant_core.quantizers.rounding.gptq import gptq
from quant_core.quantizers.rounding.mixed_channels import at_width, stored_widths
from quant_core.quantizers.rounding.round_weights import RoundedWeights, improvement, knows_more
from quant_core.quantizers.rounding.trellis import trellis_coded
from quant_core.quantizers.simulation.network import Simulation, Visit
from quant_core.quantizers.tuning.tuning_samples import with_mixtures
from quant_core.spec import WeightOptions
from quant_core.spec.progress import Tell

_MORE = 4
"""How many times more columns are looked at where there is time."""

Look = Literal["few", "many", "mixed"]
"""Columns that are looked at: few, four times as many, or as many with those of mixed samples among them."""

Weights = Mapping[str, QuantizedWeight]


@dataclass(frozen=True, eq=False)
class FollowedPlan:
    """A plan whose layers are followed.

    Attributes:
        network: The float network.
        places: Where layers are followed; the others keep their codes.
        weights: Layer name -> codes of the plan.
        widths: Layer name -> how its weight is rounded.
        given: Codes at all widths, whose ranges are kept.
        simulate: Gives the network of a plan's weights, rounded activations and all.
        options: How weights find their codes.
        seed: Seed of the choice of places, and of mixtures.
    """

    network: FloatNetwork
    places: Sequence[FollowedPlace]
    weights: Weights
    widths: Mapping[str, int]
    given: RoundedWeights
    simulate: Callable[[Weights], Simulation]
    options: WeightOptions
    seed: int


def follow(
    plan: FollowedPlan, samples: Samples, look: Look, *, coded: Collection[str] = (), on_progress: Tell
) -> dict[str, QuantizedWeight]:
    """Round the layers of a plan again, one after another, each for its inputs in the network rounded so far.

    A layer's target is no longer its float weight, but what gives the float network's output best from the inputs that
    it really gets, rounded activations included (`refit.py`); GPTQ then rounds that by the moments of these inputs.
    Layers whose target other samples do not confirm keep the float weight as theirs, and their codes where the inputs
    are not known well (`knows_more`). Rows that no output reads, such as those of padding, do not count.

    All samples run at once, layer by layer; at most 512 of them, of large networks fewer. With the look `mixed`, as
    many mixtures of them do so too, if memory allows.

    Args:
        plan: The plan.
        samples: Calibration samples.
        look: Which columns are looked at.
        coded: Layers that get trellis codes where these lose less.
        on_progress: Called with the fraction done and a message; may raise to stop.

    Returns:
        Layer name -> codes.
    """
    if not plan.places:
        return dict(plan.weights)
    layers = [place.layer for place in plan.places]
    known = count = followed_samples(layers, samples)
    # One length for all, so that places in one batch are those in all together.
    samples = replace(samples.spread(count).shortened(), padding=None)
    if look == "mixed":
        samples = with_mixtures(samples, fitting_samples(layers) - count, np.random.default_rng(plan.seed))
        count = samples.count
    on_progress(0.0, "rounding that follows: the float network")
    most = MOST_COLUMNS * (1 if look == "few" else _MORE)
    expected = float_columns(plan.network, layers, samples, most, plan.seed)
    simulation = plan.simulate(
        {
            **plan.weights,
            **{p.layer.name: _with_bias(plan.weights[p.layer.name], p.bias) for p in plan.places},
        }
    )
    found, total = dict(plan.weights), len(expected)

    def visit(place: FollowedPlace, value: Tensor) -> Mapping[str, npt.NDArray[np.float32]]:
        name = place.layer.name
        on_progress(1 - len(expected) / total, f"rounding that follows: {name}")
        columns = _columns(place, value, expected.pop(name), count)
        certain = knows_more(place.layer, known)
        rounded = _rounded(plan, place, columns, certain=certain, coded=name in coded)
        if rounded is None:
            return {}
        found[name] = rounded
        return rounded.stand_ins(place.layer.weight)

    visits: dict[str, list[Visit]] = {}
    for place in plan.places:
        if place.layer.name in expected:
            visits.setdefault(simulation.input_of(place.layer), []).append(partial(visit, place))
    simulation.revise(samples.inputs, visits, count)
    return found


def _with_bias(weight: QuantizedWeight, bias: CorrectedBias | None) -> QuantizedWeight:
    """The codes with a bias that can change, where the layer has one."""
    return weight if weight.bias is not None else replace(weight, bias=bias)


def _columns(place: FollowedPlace, value: Tensor, expected: FloatColumns, samples: int) -> Columns:
    """What a layer is given in the rounded network, and what its output lacks."""
    groups, outputs, _ = rows_shape(place.layer)
    inputs = columns_at(place.layer, place.node, value, expected.places.to(value.device)).float().cpu()
    output = (expected.output - place.added).view(-1, groups, outputs).transpose(0, 1)
    lacking = torch.baddbmm(output, inputs, place.rows.transpose(1, 2), alpha=-1)
    return Columns(inputs, lacking, expected.sample, samples)


def _rounded(
    plan: FollowedPlan, place: FollowedPlace, columns: Columns, *, certain: bool, coded: bool
) -> QuantizedWeight | None:
    """Codes for what a layer is given; None where those that it has stay."""
    if not bool(torch.isfinite(columns.inputs).all()):
        return None
    layer, options = place.layer, plan.options
    start, width = plan.weights[layer.name], plan.widths[layer.name]
    bias = place.bias if options.bias_correction else None
    found = refit(columns, with_bias=bias is not None)
    shift = found.lacking
    if found.weight is not None:
        shift = shift - (found.weight * found.moments.mean[:, None, :]).sum(2)
    if bias is not None:
        bias = replace(bias, values=bias.values + shift.numpy().reshape(bias.values.shape))
    if found.weight is not None or certain:
        target = from_rows(layer, place.rows if found.weight is None else place.rows + found.weight).astype(
            np.float32
        )
        beta = options.foem_beta if options.rounding == "foem" else 0.0
        rounded = gptq(
            layer,
            target,
            found.moments,
            stored_widths(width, start.narrow),
            bias,
            beta=beta,
            grid_of=options.grid,
            improve=improvement(options),
            given=plan.given[layer.name],
        )
        scalar = at_width(rounded, width, start.narrow)
        if not coded:
            return scalar
        return trellis_coded(layer, target, scalar, found.moments, bias, descent=options.descent)
    if bias is None or not bool(shift.any()):
        return None
    weight = from_rows(layer, place.rows).astype(np.float32)
    return replace(start, bias=corrected_bias(layer, weight, start, found.moments, bias))
