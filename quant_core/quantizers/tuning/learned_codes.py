"""Codes, scales and bias of one layer as parameters that gradients reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from quant_core.codes import CorrectedBias, QuantizedWeight
from quant_core.codes.number_formats import half_from
from quant_core.ingest.constant_tensors import stored_tensor
from quant_core.ingest.layer import Layer
from quant_core.quantizers.bias_correction.input_means import find_bias
from quant_core.quantizers.moments.rows import from_rows, rows_view, scale_to_rows
from quant_core.quantizers.rounding.viterbi import PathGrid, halves_of

Kind = Literal["codes", "scales", "biases"]

RATES: Mapping[Kind, float] = {"codes": 5e-3, "scales": 1e-3, "biases": 1e-3}
"""Learning rates of Adam."""

NEAREST_BORDER = 0.45
"""How close to the border between two codes a weight may start, in codes: so far from the code given."""


class LearnedCodes:
    """`W = s exp(2^(2-b) g) round(u)` with u, g and the bias free, s the steps given, u in steps from the zero point.

    u starts between the code given and the float weight, so that codes which were a close decision change first. The
    gradient of round is taken for 1 (straight through); with a trellis the nearest values on its paths take its place.
    The bias moves in units of 2^(2-b) times the layer's output, so that one learning rate fits every layer at every
    width b. Where the mean m of the inputs is given, the bias takes up what codes and steps move the mean output by,
    `b = b' - (W - W_start) m`: inputs behind a Relu have most of their energy in their mean, so that every code that
    flips would shift its output for all samples alike.
    """

    def __init__(
        self,
        model: ir.Model,
        layer: Layer,
        start: QuantizedWeight,
        output: Tensor,
        *,
        mean: Tensor | None = None,
        reach: float = NEAREST_BORDER,
    ) -> None:
        """Start from given codes.

        Args:
            model: The graph.
            layer: A layer of it.
            start: Its codes and scales.
            output: Its float output on some samples, or that of its block.
            mean: Mean of each of its inputs, `[groups, inputs]` as `rows_shape` counts them.
            reach: Most that u may start from the code given, on the side of the float weight.
        """
        device = output.device
        weight = torch.from_numpy(np.array(stored_tensor(model, layer.weight).numpy(), dtype=np.float32)).to(
            device
        )
        scale = torch.from_numpy(np.array(start.spread(start.scale))).to(device)
        codes = torch.from_numpy(start.elements()).to(device)
        self._weight, self._start = layer.weight, start
        zero_points = np.zeros(()) if start.zero_point is None else start.spread(start.zero_point)
        self._zero_points = torch.from_numpy(np.array(zero_points)).to(device).float()
        self._low, self._high = (
            torch.from_numpy(limit).to(device) - self._zero_points for limit in start.code_limits()
        )
        border = (weight / scale - codes).clamp(-reach, reach)
        self._before_rounding = (codes + border).requires_grad_()
        self._scale = scale
        # What 8-bit codes can bear is a 64th of what 2-bit codes can.
        self._pace = 2.0 ** (2 - start.in_full().bits)
        # Steps of blocks are stored in fewer bits than a gradient would move them by.
        self._log_growth = None if start.block_size else torch.zeros_like(scale).requires_grad_()
        bias = start.bias or find_bias(model, layer)
        self._bias = bias
        self._shift: Tensor | None = None
        if bias is not None:
            self._first = torch.from_numpy(bias.values.copy()).to(device)
            self._unit = self._pace * output.square().mean().sqrt()
            self._shift = torch.zeros_like(self._first).requires_grad_()
        self._paths = _Paths(layer, start) if start.trellis else None
        self._layer, self._mean = layer, None if self._shift is None else mean
        self._rounded = scale * codes

    def parameters(self, kind: Kind) -> list[Tensor]:
        """Give the parameters of one kind.

        Args:
            kind: Which.

        Returns:
            Leaf tensors that require a gradient; none where the layer has no bias of its own.
        """
        if kind == "codes":
            return [self._before_rounding]
        if kind == "scales":
            return [] if self._log_growth is None else [self._log_growth]
        return [] if self._shift is None else [self._shift]

    def stand_ins(self) -> dict[str, Tensor]:
        """Give what stands in for the float initializers.

        Returns:
            Initializer name -> values, differentiable in the parameters.
        """
        weight = self._steps() * self._codes()
        values = {self._weight: weight}
        if self._bias is not None and self._shift is not None:
            bias = self._first + self._unit * self._shift
            if self._mean is not None:
                moved = rows_view(self._layer, weight - self._rounded)
                bias = bias - (moved * self._mean[:, None, :]).sum(2).reshape(bias.shape)
            values[self._bias.name] = bias
        return values

    def result(self) -> QuantizedWeight:
        """Give the codes as they are now.

        Returns:
            Codes, scales and bias.
        """
        with torch.no_grad():
            codes = self._codes().round() + self._zero_points
            scale = self._start.scale
            if self._log_growth is not None:
                scale = half_from(self._steps().cpu().numpy().reshape(scale.shape))
            bias = self._bias
            if bias is not None:
                bias = CorrectedBias.stored(bias.name, self.stand_ins()[bias.name].cpu().numpy())
            return replace(self._start, codes=codes.to(torch.int8).cpu().numpy(), scale=scale, bias=bias)

    def project(self) -> None:
        """Pull weights that left the grid back within reach of its last code, so that they can return."""
        with torch.no_grad():
            self._before_rounding.clamp_(self._low - NEAREST_BORDER, self._high + NEAREST_BORDER)

    def _steps(self) -> Tensor:
        return (
            self._scale if self._log_growth is None else self._scale * (self._pace * self._log_growth).exp()
        )

    def _codes(self) -> Tensor:
        u = self._before_rounding
        nearest = u.round() if self._paths is None else self._paths.nearest(u.detach())
        return u + (nearest - u).detach()


class _Paths:
    """Rounds to the values of a trellis, by the steps that were given."""

    def __init__(self, layer: Layer, start: QuantizedWeight) -> None:
        self._layer = layer
        steps = scale_to_rows(layer, start.scale)[0].numpy().T
        self._grid = PathGrid(steps, halves_of(start, steps.shape[1]))
        self._last: tuple[Tensor, Tensor] | None = None

    def nearest(self, u: Tensor) -> Tensor:
        """What lies nearest to u; searched once as long as u stays."""
        if self._last is None or not torch.equal(self._last[0], u):
            rows = rows_view(self._layer, u)[0].cpu().numpy()
            found = self._grid.values(np.ascontiguousarray(rows.T)).T
            values = from_rows(self._layer, torch.from_numpy(np.ascontiguousarray(found))[None])
            self._last = u.clone(), torch.from_numpy(values).to(u)
        return self._last[1]
