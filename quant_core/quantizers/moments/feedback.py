"""What rounding loses at each input, handed to the inputs after it: one triangular factor, and the sweep over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quant_core.errors import InternalError

DAMPING = 0.01
"""Share of the mean diagonal of H that is added to it, as in GPTQ."""
_MOST_DAMPING = 1e9
"""Damping beyond which what still fails is no matrix of second moments."""
_INNER = 16
"""Inputs of a block that reach each other one by one."""

LEAST_MEAN = 1e-24
"""Taken for the mean diagonal of moments below it, as of inputs that are all 0."""

BLOCK = 128
"""Inputs between two products with all that lies before."""

Floats = npt.NDArray[np.float32]

Nearest = Callable[[Floats, int, Floats], Floats]
"""One input of every row, `[groups, starts, rows]`, its place in the order of rounding, and where its values in steps
go -> the steps."""

Carry = Callable[[Tensor, Tensor, int, int], None]
"""What is to be rounded, from one input to another, `[inputs, groups, starts, rows]`; what the block before left
behind; the first input and the end. Adds the share of all that was left behind in place; asked block after block."""


class Triangle(Protocol):
    """M, a triangle with ones on its diagonal."""

    def block(self, start: int, stop: int) -> Tensor:
        """Give M among some inputs, `[groups, inputs, inputs]`."""
        ...

    def carried(self) -> Carry:
        """Give what hands on from block to block, for one sweep."""
        ...


@dataclass(frozen=True, eq=False)
class DenseTriangle:
    """M in full.

    Attributes:
        unit: M, `[groups, inputs, inputs]`.
    """

    unit: Tensor

    def block(self, start: int, stop: int) -> Tensor:
        """Give M among some inputs.

        Args:
            start: The first.
            stop: Their end.

        Returns:
            `[groups, inputs, inputs]`.
        """
        return self.unit[:, start:stop, start:stop]

    def carried(self) -> Carry:
        """Give what hands on from block to block: one product with all that was left behind."""
        held: list[Tensor] = []
        done = 0

        def carry(work: Tensor, behind: Tensor, start: int, stop: int) -> None:
            nonlocal done
            if not start:
                return
            if not held:
                held.append(behind.new_empty(self.unit.shape[1], *behind.shape[1:]))
            held[0][done:start] = behind[: start - done]
            add_product(work, self.unit[:, :start, start:stop], held[0][:start])
            done = start

        return carry


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
        triangle: M.
        pivots: `R_kk^2`, in the order of rounding, `[groups, inputs]`.
    """

    order: Tensor
    back: Tensor
    triangle: Triangle
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

        Raises:
            InternalError: If no damping makes H positive definite: it is not finite, or was none of second moments.
        """
        order = second.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
        # R is the Cholesky factor of A read backwards.
        A = _columns(_rows(second, order.flip(1)), order.flip(1))
        diagonal = A.diagonal(dim1=1, dim2=2)
        mean = diagonal.mean(dim=1, keepdim=True).clamp_min(LEAST_MEAN)
        damping, added = DAMPING, 0.0
        while True:
            diagonal += (damping - added) * mean
            factor, failed = torch.linalg.cholesky_ex(A)
            if bool(failed.any()):
                factor, failed = torch.linalg.cholesky_ex(A.double())
            if not bool(failed.any()):
                break
            if damping > _MOST_DAMPING:
                raise InternalError("second moments of a layer's inputs are not positive semidefinite")
            damping, added = 10 * damping, damping  # rank-deficient beyond rounding error: too few columns
        unit = factor.float().flip(1, 2)
        pivots = unit.diagonal(dim1=1, dim2=2).clone()
        unit /= pivots[:, None, :]
        return cls(order, order.argsort(dim=1), DenseTriangle(unit), pivots.square())

    def taken(self, rows: Tensor) -> Tensor:
        """Lay rows out for the sweep: inputs first, in the order of rounding.

        Args:
            rows: `[groups, rows, inputs]`.

        Returns:
            `[inputs, groups, rows]`; one input of all rows is one piece of memory.
        """
        return _columns(rows, self.order).permute(2, 0, 1).contiguous()

    def given_back(self, values: Tensor) -> Tensor:
        """Undo `taken`.

        Args:
            values: `[inputs, groups, starts, rows]`.

        Returns:
            `[starts, groups, rows, inputs]`.
        """
        back = self.back.T[:, :, None, None].expand_as(values)
        # Indexing in brackets takes five times as long.
        whole = values.index_select(0, self.back[0]) if len(self.back) == 1 else values.gather(0, back)
        return whole.permute(2, 1, 3, 0)

    def sweep(
        self, weights: Tensor, nearest: Nearest, starts: int = 1, beta: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Round input by input, under several grids at once.

        What inputs lose reaches one of the same 16 as a product with a vector, those of the same 128 and all others as
        products of matrices. The loop over inputs is numpy's, whose calls cost a tenth of torch's.

        Args:
            weights: As `taken` lays them out; left as they are.
            nearest: Rounds one input of every row.
            starts: Number of grids that it rounds to.
            beta: Weight of FOEM's first-order term; 0 is GPTQ to the last bit.

        Returns:
            Values in steps, `[inputs, groups, starts, rows]`, in float16, which holds those of all grids exactly; and
            what every row loses, `(w - q) A (w - q)^T`, `[groups, starts, rows]`.
        """
        inputs, groups, rows = weights.shape
        values = torch.empty(inputs, groups, starts, rows, dtype=torch.float16)
        block = torch.empty(min(BLOCK, inputs), groups, starts, rows)
        behind = torch.empty_like(block)
        gone = torch.empty(values.shape) if beta else behind
        originals, found = weights.numpy()[:, :, None, :], block.numpy()
        left, lacking = behind.numpy(), gone.numpy()
        lost = np.zeros((groups, starts, rows), dtype=np.float32)
        rounded = np.empty_like(lost)
        carry = self.triangle.carried()
        for outer in range(0, inputs, BLOCK):
            end = min(outer + BLOCK, inputs)
            work = weights[outer:end, :, None, :].expand(-1, -1, starts, -1).clone()
            carry(work, behind, outer, end)
            unit = self.triangle.block(outer, end)
            for start in range(outer, end, _INNER):
                stop = min(start + _INNER, end)
                part = work[start - outer : stop - outer]
                first, last = start - outer, stop - outer
                if first:
                    add_product(part, unit[:, :first, first:last], behind[:first])
                columns = part.numpy()
                shares = unit[:, first:last, first:last].transpose(1, 2).contiguous().numpy()
                for at, k in enumerate(range(start, stop)):
                    column, original, to, here = columns[at], originals[k], found[k - outer], left[k - outer]
                    if at:
                        add_rows(column, shares[:, at, :at], left[first : first + at])
                    given = column - beta * (column - original) if beta else column
                    steps = nearest(given, k, to)
                    np.multiply(to, steps, out=rounded)
                    np.subtract(original, rounded, out=lacking[k] if beta else here)
                    if beta:
                        # Of what is then left as much is given back again.
                        here[...] = given - beta * (given - original) - rounded - (column - original)
                    np.subtract(column, rounded, out=column)
                np.square(columns, out=columns)
                columns *= self.pivots[:, start:stop].T[..., None, None].numpy()
                lost += columns.sum(0)
            values[outer:end] = block[: end - outer]
        if beta:
            whole = self._through(gone).square_()
            return values, (whole * self.pivots.T[..., None, None]).sum(0)
        return values, torch.from_numpy(lost)

    def _through(self, gone: Tensor) -> Tensor:
        """M^T times what every row lacks, `[inputs, groups, starts, rows]`."""
        whole, carry = gone.clone(), self.triangle.carried()
        for start in range(0, len(gone), BLOCK):
            stop = min(start + BLOCK, len(gone))
            carry(whole[start:stop], gone[max(0, start - BLOCK) : start], start, stop)
            add_product(whole[start:stop], self.triangle.block(start, stop).triu(1), gone[start:stop])
        return whole


def add_product(work: Tensor, shares: Tensor, behind: Tensor) -> None:
    """Add what some inputs left behind to others.

    Args:
        work: `[others, groups, starts, rows]`, in place.
        shares: `[groups, inputs, others]`.
        behind: `[inputs, groups, starts, rows]`.
    """
    if len(shares) == 1:
        work.view(len(work), -1).addmm_(shares[0].T, behind.view(len(behind), -1))
        return
    given = behind.transpose(0, 1).reshape(len(shares), len(behind), -1)
    work += (shares.transpose(1, 2) @ given).transpose(0, 1).reshape(work.shape)


def add_rows(column: Floats, shares: Floats, behind: Floats) -> None:
    """Add what some inputs left behind to one.

    Args:
        column: `[groups, starts, rows]`, in place.
        shares: `[groups, inputs]`.
        behind: `[inputs, groups, starts, rows]`.
    """
    if len(shares) == 1:
        column += (shares[0] @ behind.reshape(len(behind), -1)).reshape(column.shape)
        return
    column += np.einsum("gi,igsr->gsr", shares, behind)


def _rows(values: Tensor, order: Tensor) -> Tensor:
    if len(values) == 1:
        return values.index_select(1, order[0])
    return values.gather(1, order[:, :, None].expand_as(values))


def _columns(values: Tensor, order: Tensor) -> Tensor:
    return values.gather(2, order[:, None, :].expand_as(values))
