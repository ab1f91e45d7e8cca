"""A layer's rows rounded input by input to the grids of several starts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from quant_core.codes import QuantizedWeight
from quant_core.ingest.layer import Layer
from quant_core.quantizers.grids.elements import Elements, Integers, code_range, elements
from quant_core.quantizers.moments.feedback import Feedback, Floats
from quant_core.quantizers.moments.rows import from_rows, scale_to_rows, to_rows
from quant_core.spec.weight_grid import WeightGrid

SWEEP_ELEMENTS = 1 << 24
"""Values, of all starts together, that one sweep holds at most."""

_Laid = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Steps, smallest and largest values in steps, each `[inputs or 1, groups, rows]`."""


@dataclass(frozen=True)
class Grid:
    """Where rows are rounded to, input by input or for all inputs at once.

    Attributes:
        steps: `[inputs or 1, groups, starts, rows]`.
        low: Smallest value in steps, laid out alike; of no account where `kinds` clips.
        high: Largest value.
        kinds: What rounds to the nearest value, if it is no integer.
    """

    steps: Floats
    low: Floats
    high: Floats
    kinds: Elements | None

    def nearest(self, column: Floats, k: int, out: Floats) -> Floats:
        """Round one input of every row.

        Args:
            column: `[groups, starts, rows]`.
            k: The input.
            out: Where its values in steps are written.

        Returns:
            The steps.
        """
        steps = _input(self.steps, k)
        np.divide(column, steps, out=out)
        if self.kinds is not None:
            out[...] = self.kinds.nearest(torch.from_numpy(out)).numpy()
            return steps
        np.rint(out, out=out)
        np.maximum(out, _input(self.low, k), out=out)
        np.minimum(out, _input(self.high, k), out=out)
        return steps


@dataclass(frozen=True, eq=False)
class GridSweep:
    """Sweeps over one layer, whichever codes they start from.

    Attributes:
        layer: The layer.
        rows: Its weight, `[groups, outputs, inputs]`, float32.
        feedback: What is lost at one input, handed to those after it.
        turned: The rows as the feedback takes them, `[inputs, groups, outputs]`, inputs in the order of rounding.
        beta: Weight of FOEM's first-order term.
    """

    layer: Layer
    rows: torch.Tensor
    feedback: Feedback
    turned: torch.Tensor
    beta: float

    @classmethod
    def of(cls, layer: Layer, rows: torch.Tensor, feedback: Feedback, beta: float) -> GridSweep:
        """Lay the rows out for the sweeps.

        Args:
            layer: The layer.
            rows: Its weight, `[groups, outputs, inputs]`.
            feedback: That of its input moments.
            beta: Weight of FOEM's first-order term.

        Returns:
            The sweeps.
        """
        return cls(layer, rows, feedback, feedback.taken(rows), beta)

    def sweep(self, starts: Sequence[QuantizedWeight], step: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Round every `step`-th output to the grid of each start.

        Args:
            starts: Scales, zero points and outliers; codes do not count.
            step: Distance between the outputs that are rounded.

        Returns:
            Values in steps, `[starts, groups, outputs, inputs]`, and what each row loses, `[starts, groups * outputs]`.
        """
        turned = self.turned[:, :, ::step].contiguous()
        found, lost = self.feedback.sweep(turned, self.grid(starts, step).nearest, len(starts), self.beta)
        return self.feedback.given_back(found), lost.transpose(0, 1).flatten(1)

    def codes(self, starts: Sequence[QuantizedWeight], values: torch.Tensor) -> list[QuantizedWeight]:
        """Put the codes that a sweep over all outputs found in place of those of its starts.

        Args:
            starts: What was swept from.
            values: Values in steps, `[starts, groups, outputs, inputs]`.

        Returns:
            One weight for each start.
        """
        return [self._encoded(start, value) for start, value in zip(starts, values, strict=True)]

    def grid(self, starts: Sequence[QuantizedWeight], step: int = 1) -> Grid:
        """Lay out steps and limits of all starts as the rows lie.

        Args:
            starts: Scales, zero points and outliers of one format.
            step: Distance between the outputs that are laid out.

        Returns:
            The grid, inputs in the order of rounding.
        """
        kinds = elements(starts[0].bits, WeightGrid(format=starts[0].format))
        laid = [self._laid_out(start, step) for start in starts]
        steps, low, high = (torch.stack(parts, dim=2).numpy() for parts in zip(*laid, strict=True))
        return Grid(steps, low, high, None if isinstance(kinds, Integers) else kinds)

    def weighted(self, prices: torch.Tensor) -> npt.NDArray[np.float32]:
        """Give every weight the price of its input.

        Args:
            prices: `[groups, inputs]`, inputs in the order of rounding.

        Returns:
            An array in the weight's shape.
        """
        price = prices.gather(1, self.feedback.back)
        return from_rows(self.layer, price[:, None, :].expand(self.rows.shape)).astype(np.float32)

    def _laid_out(self, start: QuantizedWeight, step: int) -> _Laid:
        groups, outputs, _ = self.rows.shape
        order = self.feedback.order[:, None, :].expand(self.rows.shape)

        def in_order(values: npt.NDArray[np.generic], *, every: bool = False) -> torch.Tensor:
            if start.block_size is None and not every:
                steps = scale_to_rows(self.layer, values.astype(np.float32)).expand(groups, outputs, 1)
                return steps[:, ::step].permute(2, 0, 1)
            each = values if every else np.broadcast_to(start.spread(values), self.layer.shape)
            laid = to_rows(self.layer, each).float()
            return laid.gather(2, order)[:, ::step].permute(2, 0, 1)

        steps = in_order(start.scale)
        if start.format != "int":
            return steps, steps, steps
        if start.outliers is None:
            low, high = (torch.full_like(steps, limit) for limit in code_range(start.bits))
        else:
            low, high = (in_order(limits, every=True) for limits in start.code_limits())
        if start.zero_point is not None:
            shift = in_order(start.zero_point)
            low, high = low - shift, high - shift
        return steps, low, high

    def _encoded(self, start: QuantizedWeight, values: torch.Tensor) -> QuantizedWeight:
        values = values.float()
        if start.zero_point is not None:
            zero_points = np.broadcast_to(start.spread(start.zero_point), self.layer.shape)
            values = values + to_rows(self.layer, zero_points).float()
        codes = elements(start.bits, WeightGrid(format=start.format)).encode(values)
        laid = from_rows(self.layer, torch.from_numpy(codes)).astype(np.int8, copy=False)
        return replace(start, codes=laid)


def _input(part: Floats, k: int) -> Floats:
    found: Floats = part[k] if len(part) > 1 else part[0]
    return found
