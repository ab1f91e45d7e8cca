"""How each layer will run, and which activation tensors are rounded to 8 bits for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from quant_core.errors import InternalError
from quant_core.export.placement.forms import Form, Placement
from quant_core.export.placement.kernels import round_kernels
from quant_core.export.placement.operands import round_operands
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.target import Target
from quant_core.ingest.layer import Layer
from quant_core.spec import WeightOptions

_DEFAULT = WeightOptions()


def layer_form(
    layer: Layer,
    model: ir.Model,
    bits: int,
    activation_bits: int,
    target: Target = ORT_CPU,
    options: WeightOptions = _DEFAULT,
) -> Form:
    """Choose how a layer runs at a bit-width.

    Args:
        layer: The layer.
        model: The normalised model it belongs to.
        bits: Bits of its weight.
        activation_bits: 8, or 32 for float activations; what the layer says for itself goes before it.
        target: The runtime.
        options: Says which grid weights of this width are rounded to.

    Returns:
        The form.

    Raises:
        InternalError: If the target has none for this width.
    """
    form = target.form(layer, model, bits, activation_bits, options.grid(bits))
    if form is None:
        raise InternalError(f"{target.name} has no form for {layer.name} at {bits} bits")
    return form


def place(
    model: ir.Model,
    layers: Collection[Layer],
    bits: Mapping[str, int],
    activation_bits: int,
    target: Target = ORT_CPU,
    options: WeightOptions = _DEFAULT,
) -> Placement:
    """Decide every layer's form and every rounded tensor.

    Args:
        model: The normalised model.
        layers: Its layers.
        bits: Layer name -> weight bits.
        activation_bits: 8, or 32 for float activations.
        target: The runtime.
        options: Says which grid weights of each width are rounded to.

    Returns:
        The placement.
    """
    forms = {
        layer.name: layer_form(layer, model, bits[layer.name], activation_bits, target, options)
        for layer in layers
    }
    if target.rounding == "operands":
        return round_operands(model, layers, forms)
    return round_kernels(model, layers, forms, swish_in_float=target.fuses_swish)
