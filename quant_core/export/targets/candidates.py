"""Candidates narrowed to what a target has a form for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from quant_core.allocation.candidates import Candidates
from quant_core.errors import SpecError
from quant_core.export.targets.target import Target
from quant_core.export.targets.target_of import target_of
from quant_core.ingest.layer import Layer
from quant_core.spec import FLOAT_BITS, WEIGHT_BITS, QuantizeSpec, WeightGrid, format_bits

_CHANGES: tuple[Mapping[str, object], ...] = (
    {"symmetric": True},
    {"granularity": "channel"},
    {"weight_format": "int"},
    {"activation_bits": 8},
    {"opset": 19},
)
"""What to ask for instead, one at a time, to have a grid that is the nearest to one that cannot be had."""


def within_target(
    candidates: Mapping[str, Candidates],
    layers: Sequence[Layer],
    model: ir.Model,
    spec: QuantizeSpec,
    target: Target,
) -> Mapping[str, Candidates]:
    """Keep the widths that a target can run.

    A layer that is left without any gets the next larger width that it can have, and says so, unless a rule of the
    request stands against that.

    Args:
        candidates: Layer name -> bits it may be given by the request.
        layers: The layers, with activation bits of their own.
        model: The normalised model.
        spec: The request.
        target: The runtime.

    Returns:
        Layer name -> candidates.

    Raises:
        SpecError: If the request names a width that no layer can have, or rules leave a layer none.
    """
    able = {layer.name: _able(layer, model, spec, target) for layer in layers}
    anywhere = sorted({bits for widths in able.values() for bits in widths})
    unknown = [bits for bits in _asked(spec, anywhere) if bits not in anywhere]
    if unknown:
        change = _one_change_away(unknown, anywhere, layers, model, spec)
        raise SpecError(
            f"{target.name} has no kernel for {_listed(unknown)}-bit weights of this model"
            f"{_as_what(spec.grid(unknown[0]))}.",
            remedy=f"The nearest it has is {_listed(_nearest(unknown[0], anywhere))}{change}; "
            f"ask for some of {_listed(anywhere)}{_also(target)}.",
            where="bits",
        )
    return {
        layer.name: _narrow(layer, candidates[layer.name], able[layer.name], spec, target) for layer in layers
    }


def _able(layer: Layer, model: ir.Model, spec: QuantizeSpec, target: Target) -> tuple[int, ...]:
    """The widths that a layer can have."""
    rounded_to = spec.default_activation_bits
    return tuple(
        bits
        for bits in WEIGHT_BITS
        if target.form(layer, model, bits, rounded_to, spec.grid(bits)) is not None
    )


def _one_change_away(
    unknown: Sequence[int],
    anywhere: Sequence[int],
    layers: Sequence[Layer],
    model: ir.Model,
    spec: QuantizeSpec,
) -> str:
    """Which of the widths, or where there is nothing but float the next, one thing asked for differently would give."""
    words = ""
    for change in _CHANGES:
        if all(getattr(spec, name) in {value, None} for name, value in change.items()):
            continue
        other = spec.model_copy(update=change)
        target = target_of(other)
        able = {bits for layer in layers for bits in _able(layer, model, other, target)} - {FLOAT_BITS}
        had = sorted(able.intersection(unknown))
        if not had and anywhere == [FLOAT_BITS]:
            had = _nearest(unknown[0], sorted(able))
        if had:
            asked = " and ".join(f"{name} {str(value).lower()}" for name, value in change.items())
            words += f", or {_listed(had)} with {asked}"
    return words


def _asked(spec: QuantizeSpec, anywhere: Sequence[int]) -> tuple[int, ...]:
    """The widths that a request names, itself or by a format; all where nothing but float is left of them."""
    if "weight_bits" in spec.model_fields_set or anywhere == [FLOAT_BITS]:
        return spec.weight_bits
    return tuple(bits for bits in spec.weight_bits if spec.grid(bits).format != "int")


def _as_what(grid: WeightGrid) -> str:
    """What is special about a grid, in words."""
    if grid.format != "int":
        return f" in {grid.format}"
    words = [] if grid.symmetric else ["with zero points"]
    if grid.block is not None:
        words.append(f"in blocks of {grid.block}")
    return " ".join(["", *words])


def _also(target: Target) -> str:
    """What grids a target has, in words."""
    sizes, formats = map(str, target.block_sizes), sorted(target.formats)
    words = f", for integers in blocks of {' or '.join(sizes)}" if target.block_sizes else ""
    return words + (f", or for weight_format {' or '.join(formats)}" if formats else "")


def _narrow(
    layer: Layer, given: Candidates, able: tuple[int, ...], spec: QuantizeSpec, target: Target
) -> Candidates:
    kept = tuple(bits for bits in given.bits if bits in able)
    if kept:
        return Candidates(kept, given.reason)
    if given.reason is not None:
        last = max(number for number, rule in enumerate(spec.rules) if rule.narrows and rule.matches(layer))
        raise SpecError(
            f"{target.name} cannot run {layer.name} ({layer.op}) at {_listed(given.bits)} bits, which is all that is "
            f"left: {given.reason}.",
            remedy=f"Let it have {_listed(able)}.",
            where=f"rules.{last}",
        )
    larger = min(bits for bits in able if bits > min(given.bits) or bits == FLOAT_BITS)
    return Candidates((larger,), f"{target.name} has no {_listed(given.bits)}-bit kernel for this {layer.op}")


def _nearest(bits: int, widths: Sequence[int]) -> list[int]:
    """The next width below and above."""
    below, above = [b for b in widths if b < bits], [b for b in widths if b > bits]
    return [*below[-1:], *above[:1]]


def _listed(widths: Sequence[int]) -> str:
    return ", ".join(map(format_bits, widths))
