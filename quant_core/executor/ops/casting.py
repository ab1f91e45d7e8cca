"""Changes of element type. Gradients pass through roundings to narrow floats unchanged (straight-through)."""

from __future__ import annotations

import torch
from torch import Tensor

from quant_core.executor.dtypes import Kind, is_minifloat, kind_of
from quant_core.executor.minifloat import round_to
from quant_core.executor.node import Node
from quant_core.executor.registry import Kernel, operator

_BITS = {
    Kind.UINT2: (2, False),
    Kind.INT2: (2, True),
    Kind.UINT4: (4, False),
    Kind.INT4: (4, True),
    Kind.UINT16: (16, False),
    Kind.UINT32: (32, False),
}


def cast(node: Node, kind: Kind, saturate: bool) -> Kernel:
    """A kernel that converts to an ONNX element type."""
    carrier = node.carrier(kind)
    if is_minifloat(kind):
        direction = node.string("round_mode", "up") if kind == Kind.FLOAT8E8M0 else "nearest"
        return lambda x: round_to(x.to(carrier), kind, saturate, direction)
    if kind == Kind.BOOL:
        return lambda x: x != 0
    if kind not in _BITS:
        return lambda x: x.to(carrier)
    bits, signed = _BITS[kind]

    def wrap(x: Tensor) -> Tensor:
        kept = x.to(torch.int64) & ((1 << bits) - 1)
        if signed:
            kept = torch.where(kept >= 1 << (bits - 1), kept - (1 << bits), kept)
        return kept.to(carrier)

    return wrap


@operator(
    "Cast", note="float16 and bfloat16 are computed in float32 without rounding unless a dtype is given"
)
def _cast(node: Node) -> Kernel:
    return cast(node, Kind(node.int("to")), node.flag("saturate", True))


@operator("CastLike")
def _cast_like(node: Node) -> Kernel:
    kind, saturate = node.kind(1), node.flag("saturate", True)
    if kind is not None:
        convert = cast(node, kind, saturate)
        return lambda x, _like: convert(x)
    return lambda x, like: cast(node, kind_of(like.dtype), saturate)(x)
