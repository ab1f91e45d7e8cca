"""What rounding loses at each input, handed to the inputs after it: one triangular factor, and the sweep over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_DAMPING = 0.01
_OUTER, _INNER = 128, 16

Nearest = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""One input of every row in the order of rounding, `[groups, 1, rows]`, and its place -> values in steps, and steps."""


@dataclass(frozen=True, eq=False)
class Feedback:
    """How far what is lost at one input can be made up for by those after it.

    With `A = H + damping I = R R^T` in the order of rounding and R upper triangular, `M = R diag(R)^-1`. Rounding w to
    q, input k is rounded after `sum_{j<k} (w_j - q_j) M_jk` is added to it, which loses
    `(w - q) A (w - q)^T = sum_k R_kk^2 e_k^2`, where e_k is what rounding it then changes (LDLQ: Chee et al., QuIP,
    arXiv:2307.13304, theorem 1 and section 4.1). These are the codes of GPTQ, whose factor U of the inverse is R^-1:
    neither the inverse nor a second factor is needed.

    Attributes:
        order: The order of rounding, by falling diagonal of H, `[groups, inputs]`.
        back: Where each input stands in it.
        unit: M, `[groups, inputs, inputs]`.
        pivots: `R_kk^2`, in the order of rounding, `[groups, inputs]`.
    """

    order: Tensor
    back: Tensor
    unit: Tensor
    pivots: Tensor

    @classmethod
    def of(cls, second: Tensor) -> Feedback:
        """Factor second moments.

        In float32: the error of a Cholesky factor in A_ij is some 1e-7 sqrt(n A_ii A_jj), element by element, far below
        the damping. Where it breaks down nevertheless float64 is tried, then more damping.

        Args:
            second: H, `[groups, inputs, inputs]`, positive semidefinite.

        Returns:
            The feedback.
        """
        order = second.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
        # R is the Cholesky factor of A read backwards.
        A = _columns(_rows(second, order.flip(1)), order.flip(1))
        diagonal = A.diagonal(dim1=1, dim2=2)
        mean = diagonal.mean(dim=1, keepdim=True).clamp_min(1e-12)
        damping, added = _DAMPING, 0.0
        while True:
            diagonal += (damping - added) * mean
            factor, failed = torch.linalg.cholesky_ex(A)
            if bool(failed.any()):
                factor, failed = torch.linalg.cholesky_ex(A.double())
            if not bool(failed.any()):
                break
            damping, added = 10 * damping, damping  # rank-deficient beyond rounding error: too few columns
        unit = factor.float().flip(1, 2)
        pivots = unit.diagonal(dim1=1, dim2=2).clone()
        unit /= pivots[:, None, :]
        return cls(order, order.argsort(dim=1), unit, pivots.square())

    def taken(self, rows: Tensor) -> Tensor:
        """Lay rows out for the sweep: inputs in the order of rounding, along the middle axis.

        Args:
            rows: `[groups, rows, inputs]`.

        Returns:
            `[groups, inputs, rows]`; one input of all rows is one piece of memory.
        """
        return _columns(rows, self.order).transpose(1, 2).contiguous()

    def given_back(self, values: Tensor) -> Tensor:
        """Undo `taken`.

        Args:
            values: `[groups, inputs, rows]`.

        Returns:
            `[groups, rows, inputs]`.
        """
        return _rows(values, self.back).transpose(1, 2)

    def sweep(self, weights: Tensor, nearest: Nearest, beta: float = 0.0) -> tuple[Tensor, Tensor]:
        """Round input by input.

        Args:
            weights: As `taken` lays them out; left as they are.
            nearest: Rounds one input of every row.
            beta: Weight of FOEM's first-order term; 0 is GPTQ to the last bit.

        Returns:
            Values in steps, laid out alike, and what every row loses, `(w - q) A (w - q)^T`, `[groups, rows]`.
        """
        groups, inputs, rows = weights.shape
        values, behind = torch.empty_like(weights), torch.empty_like(weights)
        gone = torch.empty_like(weights) if beta else behind
        lost = torch.zeros(groups, rows)
        for outer in range(0, inputs, _OUTER):
            end = min(outer + _OUTER, inputs)
            work = self._fed(weights[:, outer:end], behind, 0, outer, outer, end)
            for start in range(outer, end, _INNER):
                stop = min(start + _INNER, end)
                part = self._fed(work[:, start - outer : stop - outer], behind, outer, start, start, stop)
                errors = torch.empty_like(part)
                for k in range(start, stop):
                    at = slice(k - start, k - start + 1)
                    column, original = (
                        self._fed(part[:, at], behind, start, k, k, k + 1),
                        weights[:, k : k + 1],
                    )
                    given = column - beta * (column - original) if beta else column
                    value, steps = nearest(given, k)
                    rounded = value * steps
                    values[:, k : k + 1] = value
                    torch.sub(original, rounded, out=gone[:, k : k + 1])
                    torch.sub(column, rounded, out=errors[:, at])
                    if beta:
                        # Of what is then left as much is given back again.
                        passed = given - beta * (given - original) - rounded
                        torch.sub(passed, column - original, out=behind[:, k : k + 1])
                lost += (errors.square_() * self.pivots[:, start:stop, None]).sum(1)
        if beta:
            lost = ((self.unit.transpose(1, 2) @ gone).square_() * self.pivots[:, :, None]).sum(1)
        return values, lost

    def _fed(self, values: Tensor, behind: Tensor, start: int, stop: int, first: int, last: int) -> Tensor:
        """Add to inputs `first` to `last` what those from `start` to `stop` left behind."""
        if start == stop:
            return values
        weights = self.unit[:, start:stop, first:last].transpose(1, 2)
        return torch.baddbmm(values, weights, behind[:, start:stop])


def _rows(values: Tensor, order: Tensor) -> Tensor:
    if len(values) == 1:
        return values.index_select(1, order[0])
    return values.gather(1, order[:, :, None].expand_as(values))


def _columns(values: Tensor, order: Tensor) -> Tensor:
    return values.gather(2, order[:, None, :].expand_as(values))
