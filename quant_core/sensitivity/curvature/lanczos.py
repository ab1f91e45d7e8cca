"""Lanczos: a small tridiagonal matrix whose eigenvalues approach those of a large symmetric one."""

from __future__ import annotations

import numpy as np
import torch

from quant_core.sensitivity.curvature.traces import Floats

_SPENT = 1e-6
"""Below this share of the matrix's size, what is left of a float32 product is rounding."""


class Lanczos:
    """The Krylov space of one symmetric matrix, grown by one product at a time.

    With basis Q and tridiagonal T, `H Q = Q T + beta q_next e^T`. Every new vector is made orthogonal twice to all
    kept ones, so that no eigenvalue appears twice while they all fit (Parlett, The Symmetric Eigenvalue Problem,
    chapter 13). Without the older vectors copies of converged eigenvalues appear, which share their weight
    (Greenbaum, 1989).

    Attributes:
        basis: Kept vectors of norm 1, the newest last.
        diagonal: alpha of T.
        beside: beta of T, one for each entry of the diagonal.
        finite: False once a product held NaN or infinity.
        exhausted: True once the space holds all that can be reached from the first vector.
    """

    def __init__(self, start: torch.Tensor, *, keep: int | None = None) -> None:
        self.basis: list[torch.Tensor] = [start / torch.linalg.vector_norm(start)]
        self.diagonal: list[float] = []
        self.beside: list[float] = []
        self.finite = True
        self.exhausted = False
        self._keep = keep

    @property
    def vector(self) -> torch.Tensor:
        """The vector to multiply next."""
        return self.basis[-1]

    def extend(self, product: torch.Tensor) -> None:
        """Take in the matrix times `vector`.

        Args:
            product: The product; overwritten.
        """
        alpha = float((product * self.vector).sum(dtype=torch.float64))
        self.finite = bool(np.isfinite(alpha)) and bool(torch.isfinite(product).all())
        if not self.finite:
            return
        orthogonalise(product, self.basis)
        beta = float(
            torch.linalg.vector_norm(product, dtype=torch.float64)
        )  # squares leave float32 before numbers do
        self.finite = bool(np.isfinite(beta))
        if not self.finite:
            return
        self.diagonal.append(alpha)
        self.beside.append(beta)
        size = max(map(abs, self.diagonal)) + max(self.beside[:-1], default=0.0)
        self.exhausted = beta <= _SPENT * size or len(self.diagonal) == product.numel()
        if self.exhausted:
            return
        self.basis.append(product / beta)
        if self._keep is not None and len(self.basis) > self._keep:
            del self.basis[0]

    def ritz(self) -> tuple[Floats, Floats]:
        """Solve the small problem.

        Returns:
            Ritz values, ascending, and eigenvectors of T by column.
        """
        from scipy.linalg import eigh_tridiagonal  # few jobs ask for it, and it takes half a second to import

        values, vectors = eigh_tridiagonal(np.array(self.diagonal), np.array(self.beside[:-1]))
        return np.asarray(values, dtype=np.float64), np.asarray(vectors, dtype=np.float64)

    @property
    def largest(self) -> float:
        """Magnitude of the largest Ritz value."""
        return float(np.abs(self.ritz()[0]).max())

    def top(self) -> tuple[float, float]:
        """Give the largest eigenvalue as far as it is known.

        Returns:
            Ritz value, and the norm of `H x - value * x` for its unit vector x.
        """
        values, vectors = self.ritz()
        return float(values[-1]), 0.0 if self.exhausted else self.beside[-1] * abs(float(vectors[-1, -1]))

    def top_vector(self) -> torch.Tensor:
        """Give the unit vector of the largest Ritz value; needs all vectors kept."""
        share = self.ritz()[1][:, -1]
        x = torch.zeros_like(self.basis[0])
        for q, part in zip(self.basis, share, strict=False):
            x.add_(q, alpha=float(part))
        x.div_(torch.linalg.vector_norm(x))
        return x


def orthogonalise(vector: torch.Tensor, basis: list[torch.Tensor]) -> None:
    """Take away what lies in the span of an orthonormal basis, twice for the sake of rounding.

    Args:
        vector: Changed in place.
        basis: Orthonormal vectors of its shape.
    """
    for _ in range(2):
        for q in basis:
            vector.sub_(q, alpha=float((vector * q).sum(dtype=torch.float64)))
