"""The inverse of the empirical Fisher matrix of each layer, from a few gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from quant_core.errors import SpecError
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.curvature.derivatives import leaves
from quant_core.sensitivity.estimators.fisher import Labels, check_labels, signed_gradient
from quant_core.sensitivity.objective import Objective
from quant_core.spec.progress import Tell, tell_nobody

_CHUNK = 1 << 20
"""Numbers of the gradients held in double precision at a time."""


@dataclass(frozen=True, eq=False)
class InverseFisher:
    """The inverse of `F_i = damping * I + 1/m sum_k g_k g_k^T` for each layer's block.

    By Woodbury's identity, with the m gradients as rows of G and `K = m * damping * I + G G^T = L L^T`::

        F^-1 v = (v - G^T K^-1 G v) / damping,    diag(F^-1) = (1 - sum_k (L^-1 G)_k^2) / damping

    (M-FAC, arXiv:2107.03356, which does the same by recursion.) Holds m vectors of the weights' size.

    Attributes:
        gradients: Weight name -> G, [m, n].
        roots: Weight name -> L, [m, m], double precision.
        shapes: Weight name -> the weight's shape.
        damping: Added to the diagonal.
    """

    gradients: Mapping[str, torch.Tensor]
    roots: Mapping[str, torch.Tensor]
    shapes: Mapping[str, torch.Size]
    damping: float

    def product(self, vectors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Multiply vectors by the inverse, each by its layer's block.

        Args:
            vectors: Weight name -> vector in the weight's shape; layers may be left out.

        Returns:
            Weight name -> product.
        """
        found = {}
        for name, vector in vectors.items():
            flat = vector.reshape(-1)
            reach = torch.zeros_like(self.roots[name][:, 0])
            for part in self._parts(name):
                reach += self.gradients[name][:, part].double() @ flat[part].double()
            shares = torch.cholesky_solve(reach[:, None], self.roots[name])[:, 0]
            result = torch.empty_like(flat)
            for part in self._parts(name):
                taken = self.gradients[name][:, part].double().T @ shares
                result[part] = ((flat[part] - taken) / self.damping).to(flat.dtype)
            found[name] = result.view(vector.shape)
        return found

    def diagonal(self) -> dict[str, torch.Tensor]:
        """Give the diagonal of the inverse.

        Returns:
            Weight name -> diagonal in the weight's shape.
        """
        found = {}
        for name, gradients in self.gradients.items():
            result = torch.empty_like(gradients[0])
            for part in self._parts(name):
                solved = torch.linalg.solve_triangular(
                    self.roots[name], gradients[:, part].double(), upper=False
                )
                result[part] = ((1 - solved.square().sum(dim=0)) / self.damping).to(result.dtype)
            found[name] = result.view(self.shapes[name])
        return found

    def _parts(self, name: str) -> Iterator[slice]:
        rows, size = self.gradients[name].shape
        step = max(1, _CHUNK // rows)
        return (slice(start, start + step) for start in range(0, size, step))


def inverse_fisher(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    *,
    seed: int,
    gradients: int,
    damping: float,
    labels: Labels = "given",
    on_progress: Tell = tell_nobody,
) -> InverseFisher:
    """Invert the empirical Fisher matrix of each layer from m gradients.

    The batches are visited in turn; each gives one gradient with a random sign for each of its samples, as in
    `fisher`. With m batches of one sample F is the empirical Fisher matrix of these samples itself.

    Args:
        program: The network.
        layers: The layers.
        objective: The loss; with given labels divergences count as cross entropies, squared errors not at all.
        batches: The samples.
        seed: Seed of signs and labels.
        gradients: m; as many copies of the weights are held.
        damping: Added to the diagonal, in units of eigenvalues of F.
        labels: `given` with the samples, or drawn from the `model`.
        on_progress: Called with the fraction done and a message; an exception from it ends the work.

    Returns:
        The inverse; all NaN for a layer whose gradients are not finite.

    Raises:
        SpecError: If damping is not positive, or given labels are missing or number no output's classes.
    """
    if damping <= 0:
        raise SpecError("the damping must be positive.", remedy="Give a small number.", where="damping")
    check_labels(objective, batches, labels)
    weights = leaves(program, layers)
    rows = {name: torch.empty(gradients, weight.numel()).to(weight) for name, weight in weights.items()}
    for k in range(gradients):
        batch = batches[k % len(batches)]
        found = signed_gradient(program, objective, batch, weights, labels, seed, k)
        for name, gradient in zip(weights, found, strict=True):
            rows[name][k] = gradient.reshape(-1)
        on_progress((k + 1) / gradients, f"gradient {k + 1}")
    return InverseFisher(
        gradients=rows,
        roots={name: _root(table, damping) for name, table in rows.items()},
        shapes={name: weight.shape for name, weight in weights.items()},
        damping=damping,
    )


def _root(table: torch.Tensor, damping: float) -> torch.Tensor:
    count, size = table.shape
    step = max(1, _CHUNK // count)
    gram = count * damping * torch.eye(count, dtype=torch.float64, device=table.device)
    for start in range(0, size, step):
        part = table[:, start : start + step].double()
        gram += part @ part.T
    if not torch.isfinite(gram).all():
        return torch.full_like(gram, torch.nan)
    root: torch.Tensor = torch.linalg.cholesky(gram)
    return root
