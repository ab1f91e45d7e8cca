"""A prepared job with equalised channels: the same function, easier to round."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import torch

from quant_core.allocation.file_costs import smallest_reachable
from quant_core.calibration import Samples
from quant_core.errors import InternalError
from quant_core.executor import Program, compile_model
from quant_core.export import Form, Placement, layer_form, place
from quant_core.export.kernels.placed_run import PlacedRun
from quant_core.export.kernels.run_time import estimated_time
from quant_core.export.kernels.times import product_time
from quant_core.export.placement.float_borders import FloatBorders, float_borders
from quant_core.ingest.constant_tensors import stored_tensor
from quant_core.ingest.macs import affordable_samples
from quant_core.preparation import Prepared
from quant_core.preparation.open_widths import file_costs, open_widths
from quant_core.quantizers.equalization.channel_group import ChannelGroup
from quant_core.quantizers.equalization.channel_groups import channel_groups, output_groups
from quant_core.quantizers.equalization.channel_scales import ChannelScales, with_inputs, with_scales
from quant_core.quantizers.equalization.channel_statistics import channel_statistics
from quant_core.quantizers.equalization.scale_choice import (
    Reader,
    as_reader,
    choose_output_scales,
    choose_scales,
)
from quant_core.spec import FLOAT_BITS, Budget, QuantizeSpec
from quant_core.spec.progress import Tell

_MOST_SAMPLES, _ENOUGH = 64, 16
"""Samples that channels are told from; those that large networks are given where all ranges are calibrated."""
_MOST_MACS = 16e9
"""Multiply-accumulates in one run of all samples, beyond which there need be no more than enough."""
_BITS_IN_A_BAND = 5.0
"""Mean bits to expect where an accuracy band decides."""

_FEWEST_VALUES = 1000
"""Values of a channel that its calibrated range can be told from; on other samples more would be cut off."""

_TOLERANCE = 1e-3


def expected_bits(job: Prepared, budget: Budget) -> float:
    """Give the bits that a weight can be given on average.

    Args:
        job: The prepared job.
        budget: What the result may cost.

    Returns:
        Bits, at most 8.
    """
    known = [8.0] if budget.max_drop is None else [_BITS_IN_A_BAND]
    if budget.effective_bits is not None:
        known.append(budget.effective_bits)
    size = budget.limit_bytes(job.source.file_bytes)
    if size is not None:
        known.append(8 * (size - job.costs.base) / sum(layer.parameters for layer in job.layers))
    return min(known)


def equalize(job: Prepared, samples: Samples, spec: QuantizeSpec, bits: float, tell: Tell) -> Prepared:
    """Scale channels where that promises a smaller error with weights of so many bits.

    Args:
        job: The prepared job.
        samples: Calibration samples; at most 64 are used, of large networks with calibrated ranges fewer.
        spec: The request.
        bits: Mean bits of weights that the scales are made for; they are part of what sensitivities hold for.
        tell: Called with the fraction done and a message.

    Returns:
        The job with a scaled graph, program, layers and costs, and a note; as it was where nothing promises enough.

    Raises:
        InternalError: If the scaled graph computes something else.
    """
    if spec.equalize == "none":
        return job
    widths = {name: _nearest(choice.bits, bits) for name, choice in job.candidates.items()}
    integer = _integer_forms(job, spec, widths)
    dynamic = {name for name, form in integer.items() if form == "dynamic"}
    placed = place(job.model, job.layers, widths, spec.default_activation_bits, job.target, spec)
    borders = _borders(job, placed)
    before = dynamic | borders.reading
    # A depthwise weight has a scale for each channel it reads, so that nothing is lost by scaling these.
    depthwise = {layer.name for layer in job.layers if layer.name in integer and layer.is_depthwise}
    joined = _behind_concat(job, integer.keys() - dynamic)
    wanted = before | depthwise | joined if spec.equalize == "auto" else integer.keys()
    if not (wanted or borders.writing):
        return job
    # Channels of words have few outliers, which some sentences do not hold.
    enough = _MOST_SAMPLES if dynamic else max(_ENOUGH, affordable_samples(job.layers, _MOST_MACS))
    samples = samples.first(min(_MOST_SAMPLES, enough))
    few = samples.first(1).feeds(job.program.device, fast=True)
    values = job.program.every_tensor(few, beside=job.program.outputs)
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    outputs = {name: values[name] for name in job.program.outputs if name in values}

    def is_known(group: ChannelGroup) -> bool:
        """Whether enough was seen of its channels; what is rounded at run time has no range to know."""
        values = min(math.prod(shapes[name]) for name in group.tensors) * samples.count / samples.unit
        return not dynamic.isdisjoint(group.readers) or values >= _FEWEST_VALUES * group.channels

    groups = [
        group
        for group in channel_groups(job.graph, job.layers, before, shapes)
        if not wanted.isdisjoint(group.readers) and is_known(group)
    ]
    written = [
        group for group in output_groups(job.graph, job.layers, borders.writing, shapes) if is_known(group)
    ]
    reading = {name for group in groups for name in group.readers if name in integer}
    layers = [layer for layer in job.layers if layer.name in reading]
    axes = {group.tensors[0]: -1 - group.trailing for group in written}
    axes |= {layer.uses[0].input: 1 if layer.op in {"Conv", "ConvTranspose"} else -1 for layer in layers}
    seen = channel_statistics(job.program, axes, samples, batch_size=job.batch_size)
    readers = {
        layer.name: as_reader(
            layer,
            stored_tensor(job.graph, layer.weight).numpy(),
            seen[layer.uses[0].input],
            bits=widths[layer.name],
            dynamic=integer[layer.name] == "dynamic",
        )
        for layer in layers
    }
    elements = {name: math.prod(shape) / samples.unit for name, shape in shapes.items()}
    whole = estimated_time(PlacedRun(job.model, job.layers, placed, elements))
    behind = _behind_integers(job, placed)

    def product(group: ChannelGroup) -> float:
        """Share of the file's time that a product by its factors takes."""
        last = group.trailing == 0 or not behind.isdisjoint(group.tensors)
        return product_time(elements[group.tensors[0]], group.channels, last=last) / whole

    chosen = _inner_scales(groups, readers, product, tell)
    taken = {name for found in chosen for name in found.group.tensors}
    at_borders = [
        choose_output_scales(group, seen[group.tensors[0]], product(group))
        for group in written
        if taken.isdisjoint(group.tensors)
    ]
    chosen += [found for found in at_borders if found is not None]
    scaled_job = _scaled(job, spec, chosen, few, outputs)
    if _fits(scaled_job, spec):
        return scaled_job
    # Products cost nodes and constants, which a tight budget has no room for; scales that fold cost nothing.
    return _scaled(job, spec, [found for found in chosen if not found.group.inserted], few, outputs)


def _inner_scales(
    groups: Sequence[ChannelGroup],
    readers: Mapping[str, Reader],
    product: Callable[[ChannelGroup], float],
    tell: Tell,
) -> list[ChannelScales]:
    """Scales of the groups whose readers lose less with them than a product takes time."""
    chosen: list[ChannelScales] = []
    for position, group in enumerate(groups):
        time = product(group) if group.inserted else 0.0
        found = choose_scales(group, [readers[name] for name in group.readers if name in readers], time)
        if found is not None:
            chosen.append(found)
        tell((position + 1) / len(groups), f"{len(chosen)} of {position + 1} groups of channels scaled")
    return chosen


def _integer_forms(job: Prepared, spec: QuantizeSpec, widths: Mapping[str, int]) -> dict[str, Form]:
    """How the layers run that read their input in integers."""
    activation_bits = spec.default_activation_bits
    forms = {
        layer.name: layer_form(layer, job.model, widths[layer.name], activation_bits, job.target, spec)
        for layer in job.layers
    }
    return {name: form for name, form in forms.items() if form in {"static", "dynamic"}}


def _fits(job: Prepared, spec: QuantizeSpec) -> bool:
    """Whether the smallest file that the job can make is within its budget."""
    widths = open_widths(job.candidates, job.layers, job.model, spec, job.target)
    return job.budget is None or smallest_reachable(widths, job.costs) <= job.budget


def _borders(job: Prepared, placed: Placement) -> FloatBorders:
    """Layers before and behind which a product costs a pass over a float tensor, and no integer kernel."""
    if job.target.rounding == "operands":  # products there would part what the compiler fuses
        return FloatBorders(frozenset(), frozenset())
    return float_borders(job.model, job.layers, placed)


def _behind_concat(job: Prepared, names: Collection[str]) -> set[str]:
    """Layers that read what a Concat puts together, whose parts often differ in size."""
    written = {str(node.outputs[0].name) for node in job.graph.graph if node.op_type == "Concat"}
    return {layer.name for layer in job.layers if layer.name in names and layer.uses[0].input in written}


def _behind_integers(job: Prepared, placed: Placement) -> set[str]:
    """Tensors that hang on integer convolutions, behind which onnxruntime lays channels last."""
    convolutions = {use.node for x in job.layers if placed.forms[x.name] == "static" for use in x.uses}
    found: set[str] = set()
    for node in job.model.graph:
        integer = node.op_type == "Conv" and node.name in convolutions
        if integer or any(value is not None and value.name in found for value in node.inputs):
            found |= {str(value.name) for value in node.outputs}
    return found


def _scaled(
    job: Prepared,
    spec: QuantizeSpec,
    scales: list[ChannelScales],
    few: Mapping[str, torch.Tensor],
    outputs: Mapping[str, torch.Tensor],
) -> Prepared:
    if not scales:
        return job
    graph = with_scales(job.graph, job.layers, scales)
    model = graph if job.graph is job.model else with_scales(job.model, job.layers, scales)
    program = compile_model(graph, device=job.program.device)
    _check(program, few, outputs)
    layers = with_inputs(job.layers, scales)
    inserted = sum(found.group.inserted for found in scales)
    places = "1 place" if len(scales) == 1 else f"{len(scales)} places"
    beside = f", {inserted} of them with a product beside the layer," if inserted else ""
    note = (
        f"channels were scaled in {places}{beside} so that activations and weights round better; in float the "
        "function is the same."
    )
    return replace(
        job,
        model=model,
        graph=graph,
        program=program,
        layers=layers,
        costs=file_costs(model, layers, job.candidates, spec, job.target),
        notes=(*job.notes, note),
    )


def _check(program: Program, feeds: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        given = program.evaluate(feeds)
    for name, value in expected.items():
        if not value.is_floating_point():
            continue
        difference = float((given[name] - value).norm() / value.norm().clamp_min(1e-30))
        if not difference < _TOLERANCE:
            raise InternalError(f"scaled channels change {name!r} by {difference:.2g} of its norm.")


def _nearest(candidates: tuple[int, ...], wanted: float) -> int:
    integer = [bits for bits in candidates if bits != FLOAT_BITS]
    return min(integer, key=lambda bits: abs(bits - wanted), default=FLOAT_BITS)
