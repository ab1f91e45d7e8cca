"""Rounding that follows: each layer is rounded for what the rounded layers before it give, not the float network."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from quant_core.calibration import Samples
from quant_core.codes import CorrectedBias, QuantizedWeight
from quant_core.executor import Program
from quant_core.executor.layout import fast_layout
from quant_core.ingest.constant_tensors import stored_tensor
from quant_core.ingest.layer import Layer
from quant_core.ingest.macs import affordable_samples
from quant_core.ingest.varying_sizes import varying_tensors
from quant_core.quantizers.bias_correction.input_means import corrected_bias, find_bias
from quant_core.quantizers.following.refit import Columns, refit
from quant_core.quantizers.moments.input_columns import columns_at
from quant_core.quantizers.moments.input_moments import has_moments
from quant_core.quantizers.moments.read_positions import reads_in_part, run_as_read, seeing_batch
from quant_core.quantizers.moments.rows import from_rows, rows_shape, to_rows
from quant_core.quantizers.rounding.gptq import gptq
from quant_core.quantizers.rounding.mixed_channels import at_width, stored_widths
from quant_core.quantizers.rounding.round_weights import RoundedWeights, improvement, knows_more
from quant_core.quantizers.rounding.trellis import trellis_coded
from quant_core.quantizers.simulation.network import Simulation, Visit
from quant_core.quantizers.tuning.tuning_samples import with_mixtures
from quant_core.spec import WeightOptions
from quant_core.spec.memory_share import memory_share
from quant_core.spec.progress import Tell

FEWEST = 16
"""Samples that it takes to follow a layer."""

_MOST = 512
"""Samples that are followed at most."""
_MOST_MACS = 64e9
"""Multiply-accumulates in one run of all of them."""
_BYTES, _BYTES_AN_ELEMENT = 1 << 30, 16
"""What one layer may take in memory, and what each element that it reads or writes does."""
_COLUMN_ELEMENTS, _ALL_ELEMENTS = 1 << 22, 1 << 27
"""Numbers in the columns of one layer, and of all layers that are visited in one run."""
_FEWEST_COLUMNS, _MOST_COLUMNS = 256, 8192
_MORE = 4
"""How many times more columns are looked at where there is time."""
_SAME = 1e-3
"""Share of the largest value by which rows of one sample may differ when it is run beside others."""

Look = Literal["few", "many", "mixed"]
"""Columns that are looked at: few, four times as many, or as many with those of mixed samples among them."""

Weights = Mapping[str, QuantizedWeight]


@dataclass(frozen=True, eq=False)
class FollowedPlace:
    """Where a layer is watched.

    Attributes:
        layer: The layer.
        node: Its only node.
        rows: Its float weight, `[groups, outputs, inputs]`.
        added: What the node adds to the product, `[outputs]` or 0.
        bias: What is added to the product that may change.
    """

    layer: Layer
    node: ir.Node
    rows: Tensor
    added: Tensor
    bias: CorrectedBias | None


@dataclass(frozen=True, eq=False)
class _Expected:
    """What the float network gives at some places of a layer's output.

    Attributes:
        places: Which rows of the output, `[columns]`.
        output: `[columns, outputs]`.
        sample: Which sample it belongs to, `[columns]`.
    """

    places: Tensor
    output: Tensor
    sample: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        return cls(
            torch.cat([part.places for part in parts]),
            torch.cat([part.output for part in parts]),
            torch.cat([part.sample for part in parts]),
        )


def followed_places(graph: ir.Model, layers: Sequence[Layer], samples: Samples) -> list[FollowedPlace]:
    """Find the layers that can be followed.

    Args:
        graph: The graph.
        layers: Layers with codes.
        samples: Calibration samples.

    Returns:
        Those whose weight one node multiplies with columns, as many whatever the network computes, and adds at most a
        constant. None where the graph prescribes the batch, where there are fewer than 16 samples or fewer fit in
        memory at once, and where less than half of the arithmetic is in layers whose inputs are known by then
        (`knows_more`): most of what errors of inputs have in common would be chance.
    """
    count = _used(layers, samples)
    known = sum(layer.macs for layer in layers if knows_more(layer, count))
    if samples.batch is not None or count < FEWEST or 2 * known < sum(layer.macs for layer in layers):
        return []
    nodes = {str(node.name): node for node in graph.graph}
    varying, places = varying_tensors(graph), []
    for layer in layers:
        node = nodes[layer.uses[0].node]
        if len(layer.uses) > 1 or not has_moments(layer) or rows_shape(layer)[0] != layer.group:
            continue
        if layer.op == "ConvTranspose" or (layer.op == "Gemm" and not _is_plain(node)):
            continue
        if layer.uses[0].input in varying:
            continue  # its rows belong to other samples once others are chosen
        added = node.inputs[2] if layer.op != "MatMul" and len(node.inputs) > 2 else None
        if added is not None and added.const_value is None:
            continue
        rows = to_rows(layer, np.asarray(stored_tensor(graph, layer.weight).numpy(), dtype=np.float32))
        constant = None if added is None else added.const_value
        bias = np.zeros(1, np.float32) if constant is None else np.array(constant.numpy())
        places.append(FollowedPlace(layer, node, rows, torch.from_numpy(bias), find_bias(graph, layer)))
    return places


def follow(
    program: Program,
    places: Sequence[FollowedPlace],
    weights: Weights,
    widths: Mapping[str, int],
    samples: Samples,
    simulate: Callable[[Weights], Simulation],
    options: WeightOptions,
    given: RoundedWeights,
    *,
    batch_size: int,
    seed: int,
    look: Look,
    coded: Collection[str] = (),
    on_progress: Tell,
) -> dict[str, QuantizedWeight]:
    """Round the layers of a plan again, one after another, each for its inputs in the network rounded so far.

    A layer's target is no longer its float weight, but what gives the float network's output best from the inputs that
    it really gets, rounded activations included (`refit.py`); GPTQ then rounds that by the moments of these inputs.
    Layers whose target other samples do not confirm keep the float weight as theirs, and their codes where the inputs
    are not known well (`knows_more`). Rows that no output reads, such as those of padding, do not count.

    All samples run at once, layer by layer; at most 512 of them, of large networks fewer. With the look `mixed`, as
    many mixtures of them do so too, if memory allows.

    Args:
        program: The float network.
        places: Where layers are followed; the others keep their codes.
        weights: Layer name -> codes of the plan.
        widths: Layer name -> how its weight is rounded.
        samples: Calibration samples.
        simulate: Gives the network of a plan's weights, rounded activations and all.
        options: How weights find their codes.
        given: Codes at all widths, whose ranges are kept.
        batch_size: Samples a run of the float network.
        seed: Seed of the choice of places, and of mixtures.
        look: Which columns are looked at.
        coded: Layers that get trellis codes where these lose less.
        on_progress: Called with the fraction done and a message; may raise to stop.

    Returns:
        Layer name -> codes.
    """
    if not places:
        return dict(weights)
    layers = [place.layer for place in places]
    known = count = _used(layers, samples)
    # One length for all, so that places in one batch are those in all together.
    samples = replace(samples.spread(count).shortened(), padding=None)
    if look == "mixed":
        samples = with_mixtures(samples, _fitting(layers) - count, np.random.default_rng(seed))
        count = samples.count
    on_progress(0.0, "rounding that follows: the float network")
    columns = _MOST_COLUMNS * (1 if look == "few" else _MORE)
    expected = _expected(program, places, samples, batch_size, columns, torch.Generator().manual_seed(seed))
    simulation = simulate(
        dict(weights) | {p.layer.name: _with_bias(weights[p.layer.name], p.bias) for p in places}
    )
    found, total = dict(weights), len(expected)

    def visit(place: FollowedPlace, value: Tensor) -> Mapping[str, npt.NDArray[np.float32]]:
        name = place.layer.name
        on_progress(1 - len(expected) / total, f"rounding that follows: {name}")
        columns = _columns(place, value, expected.pop(name), count)
        certain = knows_more(place.layer, known)
        rounded = _rounded(
            place, columns, certain, weights[name], widths[name], options, given[name], coded=name in coded
        )
        if rounded is None:
            return {}
        found[name] = rounded
        return rounded.stand_ins(place.layer.weight)

    visits: dict[str, list[Visit]] = {}
    for place in places:
        if place.layer.name in expected:
            visits.setdefault(simulation.input_of(place.layer), []).append(partial(visit, place))
    simulation.revise(samples.inputs, visits, count)
    return found


def _used(layers: Sequence[Layer], samples: Samples) -> int:
    """Samples that are followed at once, by what the network computes and its largest layer holds."""
    enough = max(FEWEST, affordable_samples(layers, _MOST_MACS))
    return min(samples.count, _MOST, enough, _fitting(layers))


def _fitting(layers: Sequence[Layer]) -> int:
    """Samples of the largest layer that memory takes at once."""
    held = max((layer.input_elements + layer.output_elements for layer in layers), default=0)
    return int(memory_share() * _BYTES / max(1, _BYTES_AN_ELEMENT * held))


def _is_plain(node: ir.Node) -> bool:
    attributes = node.attributes
    scaled = any(attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta"))
    return not scaled and attributes.get_int("transA", 0) == 0


def _with_bias(weight: QuantizedWeight, bias: CorrectedBias | None) -> QuantizedWeight:
    """The codes with a bias that can change, where the layer has one."""
    return weight if weight.bias is not None else replace(weight, bias=bias)


def _expected(
    program: Program,
    places: Sequence[FollowedPlace],
    samples: Samples,
    batch_size: int,
    columns: int,
    chance: torch.Generator,
) -> dict[str, _Expected]:
    """Layer name -> what the float network gives, at places that its outputs read."""
    layers = [place.layer for place in places]
    seen = layers if reads_in_part(program, layers, samples) else []
    alone = _outputs(program, samples.first(1), layers, ())[0]
    parts: dict[str, list[_Expected]] = {}
    done = 0
    for batch in samples.batches(min(batch_size, seeing_batch(layers)) if seen else batch_size):
        outputs, read = _outputs(program, batch, layers, seen)
        for layer in layers:
            rows, counts = outputs[layer.name], read.get(layer.uses[0].output)
            each = len(rows) // batch.count
            if not done and not _same(rows[:each], alone[layer.name]):
                continue  # samples do not lie one behind the other
            if done and layer.name not in parts:
                continue
            found = torch.arange(len(rows)) if counts is None else counts.nonzero()[:, 0].cpu()
            wanted = _wanted(layer, len(places), columns, batch.count / samples.count)
            if len(found) > wanted:
                found = found[torch.randperm(len(found), generator=chance)[:wanted].sort().values]
            kept = _Expected(found + done * each, rows[found.to(rows.device)].cpu(), found // each + done)
            parts.setdefault(layer.name, []).append(kept)
        done += batch.count
    return {name: _Expected.joined(found) for name, found in parts.items()}


def _outputs(
    program: Program, samples: Samples, layers: Sequence[Layer], seen: Sequence[Layer]
) -> tuple[dict[str, Tensor], Mapping[str, Tensor]]:
    """Layer name -> rows that it writes in float; tensor -> which of them are read, where some are not."""
    feeds = {
        name: fast_layout(torch.from_numpy(np.ascontiguousarray(array)).to(program.device))
        for name, array in samples.inputs.items()
    }
    names = [layer.uses[0].output for layer in layers]
    values, read = run_as_read(program, feeds, names, seen, samples.count)
    rows = {}
    for layer in layers:
        output = values[layer.uses[0].output].movedim(1 if layer.op == "Conv" else -1, -1)
        rows[layer.name] = output.reshape(-1, output.shape[-1]).float()
    return rows, read


def _same(rows: Tensor, alone: Tensor) -> bool:
    if rows.shape != alone.shape or not rows.numel():
        return False
    return bool((rows - alone).abs().max() <= _SAME * alone.abs().max())


def _wanted(layer: Layer, layers: int, most: int, share: float) -> int:
    """Columns of a layer that are looked at in a share of the samples."""
    groups, outputs, inputs = rows_shape(layer)
    elements = min(_COLUMN_ELEMENTS * most // _MOST_COLUMNS, _ALL_ELEMENTS // layers)
    columns = min(most, max(_FEWEST_COLUMNS, elements // (groups * max(inputs, outputs))))
    return max(1, math.ceil(share * columns))


def _columns(place: FollowedPlace, value: Tensor, expected: _Expected, samples: int) -> Columns:
    """What a layer is given in the rounded network, and what its output lacks."""
    groups, outputs, _ = rows_shape(place.layer)
    inputs = columns_at(place.layer, place.node, value, expected.places.to(value.device)).float().cpu()
    output = (expected.output - place.added).view(-1, groups, outputs).transpose(0, 1)
    lacking = torch.baddbmm(output, inputs, place.rows.transpose(1, 2), alpha=-1)
    return Columns(inputs, lacking, expected.sample, samples)


def _rounded(
    place: FollowedPlace,
    columns: Columns,
    certain: bool,
    start: QuantizedWeight,
    width: int,
    options: WeightOptions,
    given: Mapping[int, QuantizedWeight],
    *,
    coded: bool,
) -> QuantizedWeight | None:
    """Codes for what a layer is given; None where those that it has stay."""
    if not bool(torch.isfinite(columns.inputs).all()):
        return None
    layer, bias = place.layer, place.bias if options.bias_correction else None
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
            given=given,
        )
        scalar = at_width(rounded, width, start.narrow)
        if not coded:
            return scalar
        return trellis_coded(layer, target, scalar, found.moments, bias, descent=options.descent)
    if bias is None or not bool(shift.any()):
        return None
    weight = from_rows(layer, place.rows).astype(np.float32)
    return replace(start, bias=corrected_bias(layer, weight, start, found.moments, bias))
