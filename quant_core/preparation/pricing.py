"""What every plan of a prepared job costs."""

from __future__ import annotations

from collections.abc import Mapping

from quant_core.allocation.ties import read_ties
from quant_core.calibration import Samples
from quant_core.codes.outliers import PAIR_BITS
from quant_core.errors import SpecError
from quant_core.export import Form, layer_form
from quant_core.export.placement.forms import input_bits
from quant_core.ingest import Layer
from quant_core.ingest.fusion_groups import find_fusion_groups
from quant_core.ingest.live_tensors import activation_owners, live_tensors
from quant_core.preparation import Prepared
from quant_core.preparation.open_widths import layers_at, open_widths
from quant_core.quantizers.following.places import followed_places
from quant_core.spec import (
    FLOAT_BITS,
    CostTable,
    LatencyTable,
    LayerCosts,
    LayerLatency,
    QuantizeSpec,
    format_bits,
)
from quant_core.spec.costs import MemoryStep
from quant_core.spec.width import activation_of, sparse_of, weight_of


def price(job: Prepared, spec: QuantizeSpec, samples: Samples | None = None) -> CostTable:
    """Put a price on every layer at every width.

    Args:
        job: The prepared job.
        spec: The request.
        samples: Calibration samples, which tell the layers that will be followed.

    Returns:
        The table.
    """
    if spec.latency_table is not None:
        _check_table(spec.latency_table, spec)
    groups = find_fusion_groups(job.model.graph, job.layers)
    ties = read_ties(spec.ties, job.layers, groups)
    together = {name: tie for tie in ties for name in tie}
    rows = []
    widths = open_widths(job.candidates, job.layers, job.model, spec, job.target)
    for layer in job.layers:
        candidates = widths[layer.name]
        forms = {width: _form(job, layer, width, spec) for width in candidates.bits}
        rows.append(
            LayerCosts(
                name=layer.name,
                weight=layer.weight,
                op=layer.op,
                parameters=layer.parameters,
                macs=layer.macs,
                bits=candidates.bits,
                reason=candidates.reason,
                bytes=dict(job.costs.layers[layer.name]),
                activation_bits={
                    width: activation_of(width) or input_bits(form) for width, form in forms.items()
                },
                effective_bits={
                    width: effective
                    for width in job.stored[layer.name]
                    if width != FLOAT_BITS and (effective := _effective(width, spec)) != width
                },
                latency=_latency(layer.name, forms, spec.latency_table),
            )
        )
    return CostTable(
        model=job.source.path.name,
        float_bytes=job.source.file_bytes,
        base=job.costs.base,
        functions=dict(job.costs.functions),
        zero_points=job.costs.zero_points,
        ties=ties,
        groups=tuple(
            group.model_copy(update={"tied": set(group.layers) <= set(together.get(group.layers[0], ()))})
            for group in groups
        ),
        layers=tuple(rows),
        memory=memory_steps(job),
        followed=() if samples is None else _followed(job, spec, samples),
    )


def _followed(job: Prepared, spec: QuantizeSpec, samples: Samples) -> tuple[str, ...]:
    if not spec.follow or spec.by_value:
        return ()
    layers = [layer for layer in job.layers if set(job.candidates[layer.name].bits) - {FLOAT_BITS}]
    return tuple(place.layer.name for place in followed_places(job.graph, layers, samples))


def memory_steps(job: Prepared) -> tuple[MemoryStep, ...]:
    """Find what a run holds at each step, with the shapes of one sample.

    By the graph, in its own order and as `live_tensors` says; what onnxruntime allocates is not measured. Where the
    graph fixes a larger batch, its share of that is taken.

    Args:
        job: The prepared job.

    Returns:
        The steps that no other step exceeds in every layer.
    """
    values = job.program.every_tensor(job.samples.first(1).feeds(job.program.device))
    owners = activation_owners(job.graph.graph, job.layers)
    steps = []
    for node, alive in live_tensors(job.graph.graph):
        fixed, elements = 0, dict[str, int]()
        for name in alive:
            if (value := values.get(name)) is None:
                continue
            share = -(-value.numel() // job.samples.unit)
            if value.is_floating_point() and name in owners:
                elements[owners[name]] = elements.get(owners[name], 0) + share
            else:
                fixed += share * value.element_size()
        steps.append(MemoryStep(node=node, fixed=fixed, elements=elements))
    return _undominated(steps)


def _undominated(steps: list[MemoryStep]) -> tuple[MemoryStep, ...]:
    kept: list[MemoryStep] = []
    for step in sorted(steps, key=lambda step: -(step.fixed + 4 * sum(step.elements.values()))):
        if not any(
            step.fixed <= other.fixed
            and all(count <= other.elements.get(name, 0) for name, count in step.elements.items())
            for other in kept
        ):
            kept.append(step)
    order = {step.node: index for index, step in enumerate(steps)}
    return tuple(sorted(kept, key=lambda step: order[step.node]))


def _form(job: Prepared, layer: Layer, width: int, spec: QuantizeSpec) -> Form:
    (noted,) = layers_at([layer], {layer.name: width})
    return layer_form(noted, job.model, weight_of(width), spec.default_activation_bits, job.target, spec)


def _effective(width: int, spec: QuantizeSpec) -> float:
    bits = weight_of(width)
    return spec.grid(bits).effective_bits(bits) + PAIR_BITS * sparse_of(width)


def _check_table(table: LatencyTable, spec: QuantizeSpec) -> None:
    wanted = spec.default_activation_bits
    if table.activation_bits != wanted:
        had, asked = (f"{format_bits(bits)} activations" for bits in (table.activation_bits, wanted))
        raise SpecError(
            f"it was measured with {had}, and {asked} are asked for: the layers run on other kernels.",
            remedy=f"Measure again with `bitwright profile --activation-bits {format_bits(wanted)}`.",
            where="latency_table",
        )
    if table.block_size not in {None, spec.block_size} and spec.granularity == "block":
        raise SpecError(
            f"its blocks have {table.block_size} weights, and blocks of {spec.block_size} are asked for.",
            remedy=f"Measure again with `bitwright profile --block-size {spec.block_size}`.",
            where="latency_table",
        )
    if table.target != spec.target:
        raise SpecError(
            f"it was measured for {table.target}, and the file is made for {spec.target}.",
            remedy=f"Measure again with `bitwright profile --target {spec.target}`.",
            where="latency_table",
        )


def _latency(name: str, forms: Mapping[int, Form], table: LatencyTable | None) -> dict[int, float] | None:
    if table is None:
        return None
    row = next((row for row in table.layers if row.name == name), None)
    if row is None:
        raise SpecError(
            f"it has no layer {name}; it was measured on {table.model}.",
            remedy="Measure this model with `bitwright profile`.",
            where="latency_table",
        )
    return {width: _time(row, form, weight_of(width)) for width, form in forms.items()}


def _time(row: LayerLatency, form: Form, bits: int) -> float:
    found = row.find(form, bits)
    if found is not None:
        return found
    timed = sorted({"float", row.form, *(other.form for other in row.others)})
    raise SpecError(
        f"{row.name} would run as {form} at {bits} bits, and the table has its times as {', '.join(timed)} alone.",
        remedy="Measure again with `bitwright profile`, or leave out the option that makes it run so.",
        where="latency_table",
    )
