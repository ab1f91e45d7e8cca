"""Eigenvalue densities of the Hessian."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class SpectrumEntry(BaseModel):
    """The density of one Hessian: the whole network's, or a layer's diagonal block.

    Attributes:
        name: The layer, or `whole net`.
        parameters: Number n of weight elements.
        values: Places of the density's points, one list a random probe.
        weights: Their weights, alike; those of a probe add up to 1.
        smallest: Smallest eigenvalue found; null where the Hessian is not finite.
        largest: Largest eigenvalue found.
        trace: Estimate of Tr(H), from the density.
        trace_stderr: Its standard error over probes; null for a single one.
        frobenius: Estimate of the Frobenius norm of H, from the density.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    parameters: int
    values: tuple[tuple[float, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    smallest: float | None
    largest: float | None
    trace: float | None
    trace_stderr: float | None = None
    frobenius: float | None


class SpectrumTable(BaseModel):
    """Eigenvalue densities by stochastic Lanczos quadrature.

    Attributes:
        version: Version of this format.
        loss: The loss.
        samples: Number of samples.
        seed: Seed of the probes.
        spectra: The whole network's first, then one a layer.
    """

    model_config = ConfigDict(frozen=True)

    version: int = 1
    loss: str
    samples: int
    seed: int
    spectra: tuple[SpectrumEntry, ...]
