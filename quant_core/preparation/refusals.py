"""Jobs that cannot be done: no layer, no float output, a budget below the smallest file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NoReturn

import onnx_ir as ir
import torch

from quant_core.allocation.candidates import Candidates
from quant_core.errors import InfeasibleBudgetError, ModelError, name_some
from quant_core.ingest import Layer, Source, find_float_weights
from quant_core.spec import FLOAT_BITS

_TRIFLE = 20
"""What stays float is named from one part in so many of all parameters."""


def refuse_no_layer(source: Source, model: ir.Model) -> NoReturn:
    """Refuse a graph without a layer.

    Args:
        source: The float file.
        model: Its normalised graph.

    Raises:
        ModelError: Always; names what is quantized already, or the largest constant that is no layer.
    """
    if source.quantized_parts:
        raise ModelError(
            f"nothing is left to quantize: every layer is quantized already ({name_some(source.quantized_parts, 3)}).",
            remedy="Give the float model that it was made from.",
            where=str(source.path),
        )
    others = find_float_weights(model, ())
    why = f"; {others[0].name!r} is none: {others[0].reason}" if others else ""
    raise ModelError(
        f"the graph has no quantizable layer{why}.",
        remedy="Constant weights of Conv, ConvTranspose, Gemm, MatMul, Gather, LSTM, GRU and RNN can be quantized.",
        where=str(source.path),
    )


def require_floats(outputs: Mapping[str, torch.Tensor], where: str) -> None:
    """Refuse a model whose answers hold no floats, and are not made of any that the graph computes.

    Args:
        outputs: Graph output name -> value of one run.
        where: The path of the file.

    Raises:
        ModelError: If no output is float.
    """
    if not any(value.is_floating_point() for value in outputs.values()):
        raise ModelError(
            "no output holds floats, so it cannot be told how much a layer loses.",
            remedy="Export the model with its logits, scores, boxes or embeddings among the outputs.",
            where=where,
        )


def refuse_budget(
    budget: int,
    smallest: int,
    float_bytes: int,
    model: ir.Model,
    layers: tuple[Layer, ...],
    candidates: Mapping[str, Candidates],
) -> NoReturn:
    """Refuse a budget that no plan meets.

    Args:
        budget: What was asked for, in bytes.
        smallest: The smallest file, in bytes.
        float_bytes: Size of the float file.
        model: The normalised model.
        layers: Its layers.
        candidates: Layer name -> bits it may be given.

    Raises:
        InfeasibleBudgetError: Always; names the largest weights that no budget reaches.
    """
    raise InfeasibleBudgetError(
        f"a budget of {budget} bytes ({budget / float_bytes:.3f}) cannot be met: the smallest reachable file is "
        f"{smallest} bytes, {smallest / float_bytes:.3f} of the float file.",
        remedy=f"Allow at least {smallest} bytes, fewer bits, or fewer pins.{_largest_left(model, layers, candidates)}",
        where="size",
    )


def _largest_left(model: ir.Model, layers: tuple[Layer, ...], candidates: Mapping[str, Candidates]) -> str:
    """Name the largest weights that no budget reaches, where they are no trifle beside the layers."""
    left = [
        (math.prod(weight.shape), weight.name, weight.reason) for weight in find_float_weights(model, layers)
    ]
    left += [
        (layer.parameters, layer.name, candidates[layer.name].reason or "nothing but float was asked for")
        for layer in layers
        if set(candidates[layer.name].bits) == {FLOAT_BITS}
    ]
    total = sum(size for size, _, _ in left)
    if total * _TRIFLE < sum(layer.parameters for layer in layers):
        return ""
    _, name, reason = max(left, key=lambda each: each[0])
    return f" {total:,} values stay float whatever the budget, most of them in {name!r}: {reason}."
