"""AdaRound: learn for every weight whether it goes up or down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quant_core.codes import QuantizedWeight
from quant_core.ingest.layer import Layer
from quant_core.quantizers.moments.rows import from_rows, rows_shape, to_rows

_STEPS = 200
"""Most updates of a layer."""
_MACS, _PASSES = 1e11, 3
"""Multiply-accumulates that the updates of a layer may take, each of them three products with H."""
_LOW, _HIGH = -0.1, 1.1
"""Ends of the sigmoid before it is clipped: those of the paper, beyond 0 and 1 so that h gets there."""
_UNDECIDED = 0.45
"""Largest share of the other code that V starts from, so that what is given is what rounds."""
_RATE = 0.05
_WARM_UP = 0.2
"""Share of the updates without a penalty."""
_FIRST_BETA, _LAST_BETA = 20.0, 2.0
"""Powers of the penalty, those of the paper: flat first, so that V moves freely, and steep in the end."""
_TINY = 1e-30


class UpOrDown:
    """Codes `floor + h(V)` with `h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)`, a rectified sigmoid.

    Of the two codes to choose from, one is the code given and the other its neighbour on the side of the float weight.
    V starts where h is the float weight's share, or as near to that as leaves the choice with the code given: nothing
    is changed by rounding h before V has moved.

    Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, arXiv:2004.10568, equations 22 to 24.
    """

    def __init__(self, codes: Tensor, weight: Tensor, low: Tensor | float, high: Tensor | float) -> None:
        """Start from given codes.

        Args:
            codes: Whole numbers in steps from the zero point.
            weight: The float weight in the same units and of the same shape.
            low: Smallest code on the grid.
            high: Largest code on the grid.
        """
        low, high = (torch.as_tensor(limit, dtype=codes.dtype, device=codes.device) for limit in (low, high))
        down = (weight < codes) & (codes > low) | (codes >= high)
        self._floor = torch.where(down, codes - 1, codes)
        share = (weight - self._floor).clamp(0, 1)
        share = torch.where(down, share.clamp_min(1 - _UNDECIDED), share.clamp_max(_UNDECIDED))
        self.parameter = torch.logit((share - _LOW) / (_HIGH - _LOW)).requires_grad_()

    def shares(self) -> Tensor:
        """Give h(V).

        Returns:
            0 for down to 1 for up, differentiable in V.
        """
        return (torch.sigmoid(self.parameter) * (_HIGH - _LOW) + _LOW).clamp(0, 1)

    def values(self) -> Tensor:
        """Give the codes with h as it is.

        Returns:
            Real numbers, differentiable in V.
        """
        return self._floor + self.shares()

    def rounded(self) -> Tensor:
        """Give the codes with h rounded.

        Returns:
            Whole numbers on the grid.
        """
        with torch.no_grad():
            return self._floor + (self.shares() >= 0.5).to(self._floor)

    def penalty(self, progress: float) -> Tensor:
        """Give what drives h to 0 or 1: the mean of `1 - |2 h - 1|^beta`, with beta falling from 20 to 2.

        Args:
            progress: Share of the steps done; for the first fifth the penalty is 0.

        Returns:
            A scalar in 0 to 1.
        """
        if progress < _WARM_UP:
            return torch.zeros((), device=self.parameter.device)
        done = (progress - _WARM_UP) / (1 - _WARM_UP)
        beta = _LAST_BETA + (_FIRST_BETA - _LAST_BETA) * 0.5 * (1 + math.cos(math.pi * done))
        return 1 - (2 * self.shares() - 1).abs().pow(beta).mean()


def affordable_steps(layer: Layer, widths: int) -> int:
    """Say how many updates a layer gets.

    Args:
        layer: A layer with input moments.
        widths: Widths that are improved one after another.

    Returns:
        200 where that takes few operations, fewer in large layers.
    """
    groups, outputs, inputs = rows_shape(layer)
    return min(_STEPS, int(_MACS / max(1, _PASSES * groups * outputs * inputs**2 * widths)))


def adaround(
    layer: Layer,
    weight: npt.NDArray[np.floating],
    starts: Sequence[QuantizedWeight],
    second: Tensor,
    *,
    steps: int | None = None,
) -> list[QuantizedWeight]:
    """Choose between two codes for each weight so that the layer's output changes least.

    Minimises `tr((Q - W) H (Q - W)^T) + lambda R(V)` over V by Adam, with H the second moments of the inputs: this is
    the mean squared error of the layer's output over all its inputs (equations 20 and 21 of the paper), of which H is
    all that matters. R is the penalty of `UpOrDown`. The result is taken row by row where the error is lower than
    that of the codes given.

    Args:
        layer: A Conv, Gemm, MatMul or ungrouped ConvTranspose.
        weight: Its float weight.
        starts: Integer codes and scales to start from, such as those of GPTQ, at any widths.
        second: H, `[groups, inputs, inputs]`.
        steps: Updates; 0 gives the codes back, None is `affordable_steps`.

    Returns:
        The codes found, in the order of `starts`.
    """
    steps = affordable_steps(layer, len(starts)) if steps is None else steps
    return [_choose(layer, weight, start, second, steps) for start in starts]


def _choose(
    layer: Layer,
    weight: npt.NDArray[np.floating],
    start: QuantizedWeight,
    second: Tensor,
    steps: int,
) -> QuantizedWeight:
    target = to_rows(layer, np.asarray(weight, dtype=np.float32))
    scale = to_rows(layer, np.broadcast_to(start.spread(start.scale), layer.shape))
    shift = np.zeros((), np.float32) if start.zero_point is None else start.spread(start.zero_point)
    shifts = to_rows(layer, np.broadcast_to(shift, layer.shape)).float()
    codes = to_rows(layer, start.elements())
    low, high = (
        to_rows(layer, np.broadcast_to(limit, layer.shape)).float() - shifts for limit in start.code_limits()
    )
    choice = UpOrDown(codes, target / scale, low, high)

    def errors(values: Tensor) -> Tensor:
        lost = values * scale - target
        return ((lost @ second) * lost).sum(2)

    before = errors(codes)
    unit = before.sum().clamp_min(_TINY)
    optimizer = torch.optim.Adam([choice.parameter], lr=_RATE)
    for step in range(steps):
        optimizer.zero_grad()
        with torch.enable_grad():  # layers that are rounded side by side have it turned off
            loss = errors(choice.values()).sum() / unit + choice.penalty(step / steps)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found = choice.rounded()
    better = errors(found) < before
    found = torch.where(better[:, :, None], found, codes) + shifts
    return replace(start, codes=from_rows(layer, found).astype(np.int8))
