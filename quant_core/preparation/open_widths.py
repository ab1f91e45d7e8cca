"""What layers can be given where the bits of activations or outliers are open, and what that takes in a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from quant_core.allocation.candidates import Candidates
from quant_core.allocation.file_costs import FileCosts
from quant_core.codes.outliers import SPARSE_BITS
from quant_core.export import Form, Target, layer_form, predict_sizes
from quant_core.ingest import Layer
from quant_core.quantizers.moments.input_moments import has_moments
from quant_core.spec import FLOAT_BITS, QuantizeSpec
from quant_core.spec.width import KERNEL_BITS, activation_of, stored_of, width_of

_ROUNDED: Collection[Form] = ("static", "dynamic")


def open_widths(
    candidates: Mapping[str, Candidates],
    layers: Sequence[Layer],
    model: ir.Model,
    spec: QuantizeSpec,
    target: Target,
) -> Mapping[str, Candidates]:
    """Join the bits of weights with the open bits of activations and shares of outliers.

    Bits of activations are open for layers that could run on 8 bits and have none by rule; others keep the bits of
    their weight. Outliers are open for what GPTQ rounds, at 2 to 6 bits.

    Args:
        candidates: Layer name -> bits of the weight.
        layers: The layers, with activation bits that rules give them.
        model: The normalised model.
        spec: The request.
        target: The runtime.

    Returns:
        Layer name -> widths.
    """
    if not spec.open_activations and not spec.outlier_shares:
        return candidates

    def widths(layer: Layer) -> tuple[int, ...]:
        found: list[int] = []
        for bits in candidates[layer.name].bits:
            form = layer_form(layer, model, bits, KERNEL_BITS, target, spec)
            free = layer.activation_bits is None and bits != FLOAT_BITS and form in _ROUNDED
            kept = spec.outlier_shares if bits in SPARSE_BITS and has_moments(layer) else ()
            activations = spec.open_activations if free and spec.open_activations else (None,)
            found += [width_of(bits, own, share) for own in activations for share in (0.0, *kept)]
        return tuple(sorted(found))

    return {layer.name: replace(candidates[layer.name], bits=widths(layer)) for layer in layers}


def layers_at(layers: Sequence[Layer], widths: Mapping[str, int]) -> tuple[Layer, ...]:
    """Note on each layer the activation bits that a file gives it.

    Args:
        layers: The layers.
        widths: Layer name -> width.

    Returns:
        The layers; activations of fewer than 8 bits have 8.
    """
    return tuple(
        layer if own is None else replace(layer, activation_bits=max(KERNEL_BITS, own))
        for layer in layers
        for own in [activation_of(widths[layer.name])]
    )


def file_costs(
    model: ir.Model,
    layers: Sequence[Layer],
    candidates: Mapping[str, Candidates],
    spec: QuantizeSpec,
    target: Target,
) -> FileCosts:
    """Predict the bytes of any plan.

    Where activations are open, everything but the weights takes what it takes at the costliest of their bits.

    Args:
        model: The normalised graph.
        layers: Its layers.
        candidates: Layer name -> bits of the weight.
        spec: The request.
        target: The runtime.

    Returns:
        The costs.
    """
    widths = open_widths(candidates, layers, model, spec, target)
    weights = {name: sorted(set(map(stored_of, choice.bits))) for name, choice in widths.items()}
    if not spec.open_activations:
        return predict_sizes(model, layers, weights, spec.default_activation_bits, target, spec)
    stored = {max(KERNEL_BITS, own) for own in spec.open_activations}
    found = {own: predict_sizes(model, layers, weights, own, target, spec) for own in stored}
    first = found[min(stored)]
    return FileCosts(
        max(sizes.base for sizes in found.values()),
        {
            name: {
                width: found[max(KERNEL_BITS, activation_of(width) or min(stored))].layers[name][
                    stored_of(width)
                ]
                for width in choice.bits
            }
            for name, choice in widths.items()
        },
        first.functions,
        max(sizes.zero_points for sizes in found.values()),
    )
