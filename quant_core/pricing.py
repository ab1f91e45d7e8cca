"""What every plan of a prepared job costs."""

from __future__ import annotations

from collections.abc import Mapping

from quant_core.allocation.ties import read_ties
from quant_core.errors import SpecError
from quant_core.export import Form, layer_form
from quant_core.ingest.fusion_groups import find_fusion_groups
from quant_core.preparation import Prepared
from quant_core.spec import FLOAT_BITS, CostTable, LatencyTable, LayerCosts, QuantizeSpec


def price(job: Prepared, spec: QuantizeSpec) -> CostTable:
    """Put a price on every layer at every width.

    Args:
        job: The prepared job.
        spec: The request.

    Returns:
        The table.
    """
    groups = find_fusion_groups(job.model.graph, job.layers)
    ties = read_ties(spec.ties, job.layers, groups)
    together = {name: tie for tie in ties for name in tie}
    rows = []
    for layer in job.layers:
        candidates = job.candidates[layer.name]
        forms = {bits: layer_form(layer, job.model, bits, spec.activation_bits) for bits in candidates.bits}
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
                    bits: 8 if form in {"static", "dynamic"} else FLOAT_BITS for bits, form in forms.items()
                },
                latency=_latency(layer.name, forms, spec.latency_table),
            )
        )
    return CostTable(
        model=job.source.path.name,
        float_bytes=job.source.file_bytes,
        base=job.costs.base,
        functions=dict(job.costs.functions),
        ties=ties,
        groups=tuple(
            group.model_copy(update={"tied": set(group.layers) <= set(together.get(group.layers[0], ()))})
            for group in groups
        ),
        layers=tuple(rows),
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
    # Where a rule keeps activations in float, the weight is unpacked at load and the layer runs as it did in float.
    integer = (
        row.float_ms if "weight_only" in forms.values() and row.form != "weight_only" else row.integer_ms
    )
    return {width: row.float_ms if width == FLOAT_BITS else integer for width in forms}
