"""Feedback of moments that are a few directions and a diagonal, without ever holding or factoring the whole matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quant_core.quantizers.moments.feedback import BLOCK, DAMPING, LEAST_MEAN, Carry, Feedback, add_product


@dataclass(frozen=True, eq=False)
class LowRankTriangle:
    """M of `A = D + F^T F`: above its diagonal blocks it is `F^T V`.

    Attributes:
        factor: F in the order of rounding, `[rank, inputs]`.
        ahead: V, `[rank, inputs]`.
        blocks: M within each block of inputs, `[blocks, inputs, inputs]`, in the last 0 beyond the inputs there are.
    """

    factor: Tensor
    ahead: Tensor
    blocks: Tensor

    def block(self, start: int, stop: int) -> Tensor:
        """Give M among some inputs of one block.

        Args:
            start: The first, where a block begins.
            stop: Their end, in the same block.

        Returns:
            `[1, inputs, inputs]`.
        """
        size = stop - start
        return self.blocks[start // BLOCK, :size, :size][None]

    def carried(self) -> Carry:
        """Give what hands on from block to block: of all that was left behind only its part along F is kept."""
        held: list[Tensor] = []
        done = 0

        def carry(work: Tensor, behind: Tensor, start: int, stop: int) -> None:
            nonlocal done
            if not start:
                held.append(work.new_zeros(len(self.factor), *work.shape[1:]))
                return
            add_product(held[0], self.factor[:, done:start].T[None], behind[: start - done])
            add_product(work, self.ahead[:, start:stop][None], held[0])
            done = start

        return carry


def low_rank_feedback(factor: Tensor, diagonal: Tensor) -> Feedback:
    """Factor `A = D + F^T F + damping I`.

    With S = I, block by block from the last to be rounded: `C = S F_B`, `G = D_B + F_B^T C = R_B R_B^T` is the Schur
    complement that is left of the block, `W = C R_B^-T` gives `R_jB = F_j^T W` of all inputs j before it, and S loses
    `W W^T`. That takes 2 r^2 operations an input for rank r, where the Cholesky factor of n inputs takes n^2 / 3.
    Products are those of float32, sums over blocks those of float64; should a block then not be positive definite, all
    is float64.

    Args:
        factor: F, `[rank, inputs]`.
        diagonal: D without damping, `[inputs]`, not negative.

    Returns:
        The feedback, one group; 1 % of the mean diagonal of the whole is added to it as in `Feedback.of`.
    """
    whole = diagonal.double() + factor.double().square().sum(0)
    order = whole.argsort(descending=True, stable=True)
    F, D = factor[:, order], (diagonal.double() + DAMPING * whole.mean().clamp_min(LEAST_MEAN))[order]
    found = _factored(F.float().contiguous(), D) or _factored(F.double(), D)
    assert found is not None
    triangle, pivots = found
    return Feedback(order[None], order.argsort()[None], triangle, pivots[None])


def _factored(F: Tensor, D: Tensor) -> tuple[LowRankTriangle, Tensor] | None:
    """M and its pivots by products in the precision of F; None where float32 does not do."""
    rank, inputs = F.shape
    blocks = torch.zeros(-(-inputs // BLOCK), BLOCK, BLOCK)
    ahead, pivots = torch.empty(rank, inputs), torch.empty(inputs)
    S = torch.eye(rank, dtype=torch.float64)
    for start in reversed(range(0, inputs, BLOCK)):
        stop = min(start + BLOCK, inputs)
        C = S.to(F.dtype) @ F[:, start:stop]
        G = (F[:, start:stop].T @ C).double()
        G.diagonal().add_(D[start:stop])
        R, failed = torch.linalg.cholesky_ex(G.flip(0, 1), check_errors=F.dtype == torch.float64)
        if failed:
            return None
        R = R.flip(0, 1)
        W = torch.linalg.solve_triangular(R.T.to(F.dtype), C, upper=False, left=False)
        S -= W @ W.T
        root = R.diagonal()
        blocks[start // BLOCK, : stop - start, : stop - start] = R / root
        ahead[:, start:stop] = W / root
        pivots[start:stop] = root.square()
    return LowRankTriangle(F.float(), ahead, blocks), pivots
