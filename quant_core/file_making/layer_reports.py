"""Rows of the report: one for each layer."""

from __future__ import annotations

from collections.abc import Mapping

from quant_core.codes.outliers import pairs_for
from quant_core.export import Placement
from quant_core.export.placement.forms import input_bits
from quant_core.file_making.choice import Choice
from quant_core.ingest import Layer
from quant_core.preparation import Prepared
from quant_core.spec import LayerPlan, LayerReport, LayerSensitivity, SensitivityTable
from quant_core.spec.bits import FLOAT_BITS
from quant_core.spec.width import KERNEL_BITS, stored_of
from quant_core.verification import LayerNoise


def layer_reports(
    job: Prepared,
    table: SensitivityTable,
    choice: Choice,
    found: Mapping[str, str],
    noise: Mapping[str, LayerNoise],
) -> tuple[LayerReport, ...]:
    """Say of every layer what was decided, how it runs and what it loses.

    Args:
        job: The prepared job.
        table: The sensitivity table.
        choice: What was decided and written.
        found: Layer name -> kernel.
        noise: Layer name -> noise at its output.

    Returns:
        The layers in the order of the job.
    """
    rows = {row.name: row for row in table.layers}
    forms = choice.placement.forms
    return tuple(
        LayerReport(
            name=layer.name,
            op=layer.op,
            weight=layer.weight,
            parameters=layer.parameters,
            macs=layer.macs,
            weight_bits=chosen.bits,
            outliers=0 if chosen.sparse is None else pairs_for(chosen.sparse, layer.parameters),
            activation_bits=_input_bits(layer, choice.placement),
            form=forms[layer.name],
            kernel=found[layer.name],
            narrow_bits=chosen.narrow_bits,
            narrow_share=chosen.narrow_share,
            trellis=_has_trellis(layer, choice),
            bytes=_bytes(job.costs.layers[layer.name], chosen),
            trace=rows[layer.name].trace,
            trace_stderr=rows[layer.name].trace_stderr,
            sensitivity=_expected_loss(rows[layer.name], chosen),
            sensitivity_stderr=(rows[layer.name].sensitivity_stderr or {}).get(chosen.bits),
            reason=chosen.reason,
            sqnr_db=noise[layer.name].accumulated_db,
            own_sqnr_db=noise[layer.name].own_db,
        )
        for layer, chosen in zip(job.layers, choice.plan.layers, strict=True)
    )


def _has_trellis(layer: Layer, choice: Choice) -> bool:
    return layer.name in choice.weights and choice.weights[layer.name].trellis


def _bytes(sizes: Mapping[int, int], chosen: LayerPlan) -> int:
    """Bytes of a layer's weight; of channels with two widths each at its own, without what decodes or orders them."""
    wide = sizes[chosen.width]
    narrow = wide if chosen.narrow_bits is None else sizes[chosen.narrow_bits]
    return round(wide + chosen.narrow_share * (narrow - wide))


def _expected_loss(row: LayerSensitivity, chosen: LayerPlan) -> float:
    if chosen.expected_loss is not None:
        return chosen.expected_loss
    of_weight = (row.sensitivity | (row.sparse_sensitivity or {}))[stored_of(chosen.width)]
    return of_weight + (row.activation_sensitivity or {}).get(chosen.activation_bits or FLOAT_BITS, 0.0)


def _input_bits(layer: Layer, placement: Placement) -> int:
    # An integer kernel has written its output in 8 bits, whoever reads it.
    if placement.forms[layer.name] == "wide" and placement.wide.isdisjoint(layer.inputs):
        return KERNEL_BITS
    return input_bits(placement.forms[layer.name])
