"""Rounding to floats of eight bits and fewer, by arithmetic, so that it runs on any device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quant_core.executor.dtypes import Kind


@dataclass(frozen=True)
class Format:
    """A narrow float format.

    Attributes:
        mantissa: Stored mantissa bits.
        low: Exponent of the smallest normal number.
        top: Largest finite value.
        infinite: Whether the format has infinities.
        nan: Whether the format has a NaN.
        signed: Whether the format has a sign.
    """

    mantissa: int
    low: int
    top: float
    infinite: bool = False
    nan: bool = True
    signed: bool = True


FORMATS = {
    Kind.FLOAT8E4M3FN: Format(3, -6, 448.0),
    Kind.FLOAT8E4M3FNUZ: Format(3, -7, 240.0),
    Kind.FLOAT8E5M2: Format(2, -14, 57344.0, infinite=True),
    Kind.FLOAT8E5M2FNUZ: Format(2, -15, 57344.0),
    Kind.FLOAT6E2M3: Format(3, 0, 7.5, nan=False),
    Kind.FLOAT6E3M2: Format(2, -2, 28.0, nan=False),
    Kind.FLOAT4E2M1: Format(1, 0, 6.0, nan=False),
    Kind.FLOAT8E8M0: Format(0, -127, 2.0**127, signed=False),
}


_STEP = {"nearest": torch.round, "up": torch.ceil, "down": torch.floor}


def _round(x: Tensor, form: Format, saturate: bool, direction: str) -> Tensor:
    wide = x.double()
    exponent = torch.frexp(wide).exponent - 1
    quantum = torch.exp2(exponent.clamp(min=form.low).double() - form.mantissa)
    rounded = _STEP[direction](wide / quantum) * quantum
    beyond = rounded.abs() > form.top
    limit = torch.full_like(rounded, form.top).copysign(wide)
    if not saturate and (form.nan or form.infinite):
        limit = torch.full_like(rounded, torch.inf if form.infinite else torch.nan).copysign(wide)
    rounded = torch.where(beyond, limit, rounded)
    if form.infinite and not saturate:
        rounded = torch.where(wide.isinf(), wide, rounded)
    if not form.signed:
        rounded = torch.where(wide < 0, torch.full_like(wide, torch.nan), rounded).clamp(min=2.0**form.low)
    return torch.where(wide.isnan(), wide, rounded).to(x.dtype)


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, form: Format, saturate: bool, direction: str) -> Tensor:
        return _round(x, form, saturate, direction)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return grad, None, None, None

    @staticmethod
    def jvp(_ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return tangent.clone()


def round_to(x: Tensor, kind: Kind, saturate: bool = True, direction: str = "nearest") -> Tensor:
    """Rounds to values of a narrow float format, to nearest with ties to even; gradients pass unchanged.

    Args:
        x: Values in a wider float type.
        kind: The narrow ONNX type.
        saturate: Clamp values beyond the largest finite one instead of making them infinite or NaN.
        direction: nearest, or up or down, which the standard offers for powers of two.

    Returns:
        Values of the narrow grid, in the type of `x`.
    """
    return _StraightThrough.apply(x, FORMATS[kind], saturate, direction)  # type: ignore[no-any-return, no-untyped-call]
