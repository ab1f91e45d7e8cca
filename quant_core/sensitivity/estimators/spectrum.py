"""The density of Hessian eigenvalues by stochastic Lanczos quadrature, of a layer or of the whole net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.quantizers.chance import rademacher
from quant_core.sensitivity.batches import MEMORY, Batch
from quant_core.sensitivity.curvature.hessian import hessian_product, sweep_progress
from quant_core.sensitivity.curvature.lanczos import Lanczos
from quant_core.sensitivity.curvature.probes import probe_generator
from quant_core.sensitivity.curvature.traces import Floats
from quant_core.sensitivity.objective import Objective
from quant_core.spec.progress import Tell, tell_nobody


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalue density of a Hessian H of n parameters, as a few points with weights from each probe.

    Attributes:
        values: Ritz values of each probe, [probes, steps]; those that a probe does not need have weight 0.
        weights: Weights, [probes, steps]; each probe's add up to 1.
        parameters: n.
        products: Products with H.
        samples: Number of samples.
    """

    values: Floats
    weights: Floats
    parameters: int
    products: int
    samples: int

    @property
    def extremes(self) -> tuple[float, float]:
        """Smallest and largest Ritz value: the extreme eigenvalues from inside, close to them after some ten steps."""
        known = self.values[self.weights > 0]
        return float(known.min()), float(known.max())

    def density(self, grid: Floats, width: float) -> Floats:
        """Smooth the spectrum by normal curves: `phi(t) = mean_probes sum_k w_k N(t; value_k, width^2)`.

        Args:
            grid: Places t, in units of eigenvalues.
            width: Standard deviation of the curves, in the same units.

        Returns:
            Density at each place; its integral over all places is 1.
        """
        distance = (np.asarray(grid)[:, None, None] - self.values) / width
        curves = np.exp(-0.5 * distance**2) / (width * np.sqrt(2 * np.pi))
        return np.asarray((self.weights * curves).sum(axis=2).mean(axis=1))

    def moment(self, order: int) -> tuple[float, float]:
        """Estimate `Tr(H^order)`: the number of parameters, the trace, the squared Frobenius norm, and so on.

        Exact for each probe's `v^T H^order v` while order is below twice the steps (Gauss quadrature).

        Args:
            order: The power.

        Returns:
            The estimate, and its standard error over probes, which a handful of them tell only roughly; NaN for one.
        """
        each = self.parameters * (self.weights * self.values**order).sum(axis=1)
        stderr = each.std(ddof=1) / len(each) ** 0.5 if len(each) > 1 else np.nan
        return float(each.mean()), float(stderr)


def spectrum(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    *,
    seed: int,
    steps: int = 32,
    probes: int = 4,
    layer: int | None = None,
    memory: int = MEMORY,
    on_progress: Tell = tell_nobody,
) -> Spectrum:
    """Estimate the eigenvalue density of the Hessian of the mean loss over all batches.

    From a random unit vector v, m steps of Lanczos give a tridiagonal T whose eigenvalues and squared first entries of
    eigenvectors are the points and weights of the Gauss quadrature of `v^T f(H) v`; the mean over v is `Tr f(H) / n`
    (Ubaru, Chen and Saad, 2017; Ghorbani, Krishnan and Xiao, arXiv:1901.10159). One step is one sweep over the batches.

    Vectors are made orthogonal to all earlier ones while `steps` of them fit into `memory`; otherwise to the last two,
    where copies of converged eigenvalues may appear that share one weight, which leaves the density as it is.

    Args:
        program: The network.
        layers: The layers.
        objective: The loss.
        batches: The samples; a few large batches are best.
        seed: Seed of the first vectors.
        steps: Steps of Lanczos for each probe.
        probes: Random vectors.
        layer: Index of the layer whose diagonal block is meant, or None for all weights together.
        memory: Bytes for the vectors.
        on_progress: Called with the fraction done and a message; an exception from it ends the work.

    Returns:
        The spectrum. All NaN if a product was not finite.
    """
    names = [one.weight for one in (layers if layer is None else [layers[layer]])]
    shapes = {name: program.weights[name] for name in names}
    bytes_each = sum(weight.nbytes for weight in shapes.values())
    keep = None if steps * bytes_each <= memory else 2
    values, weights = np.zeros((probes, steps)), np.zeros((probes, steps))
    products = 0
    for probe in range(probes):
        generator = probe_generator(seed, probe)
        space = Lanczos(_flat([rademacher(weight, generator) for weight in shapes.values()]), keep=keep)
        while len(space.diagonal) < steps and space.finite and not space.exhausted:
            product, _ = hessian_product(
                program,
                objective,
                batches,
                _shaped(space.vector, shapes),
                blocks=False,
                on_batch=sweep_progress(
                    on_progress, products, probes * steps, len(batches), f"probe {probe + 1}"
                ),
            )
            products += 1
            space.extend(_flat(list(product.values())))
        if not space.finite:
            values[:], weights[:] = np.nan, np.nan
            break
        found, vectors = space.ritz()
        values[probe, : len(found)], weights[probe, : len(found)] = found, vectors[0] ** 2
    return Spectrum(
        values=values,
        weights=weights,
        parameters=sum(weight.numel() for weight in shapes.values()),
        products=products,
        samples=sum(batch.size for batch in batches),
    )


def _flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _shaped(vector: torch.Tensor, like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    parts = torch.split(vector, [weight.numel() for weight in like.values()])
    return {name: part.view(weight.shape) for (name, weight), part in zip(like.items(), parts, strict=True)}
