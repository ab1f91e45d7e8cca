"""Errors of a network's outputs, sample by sample."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quant_core.calibration import Samples
from quant_core.executor import Program
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.simulation.network import Simulation

_SAME = 1e-12
"""Share of the outputs' energy that is no error."""
_TINY = 1e-30

Vector = npt.NDArray[np.float64]


def float_tensors(program: Program, batch: Samples, names: Collection[str]) -> dict[str, Tensor]:
    """Compute tensors of the float network.

    Args:
        program: The float network.
        batch: Samples.
        names: The tensors.

    Returns:
        Name -> value.
    """
    with torch.no_grad():
        return program.evaluate(batch.feeds(program.device, fast=True), outputs=list(names))


def error_falls(
    network: FloatNetwork, before: Simulation, after: Simulation, samples: Samples, size: int | None = None
) -> Vector:
    """Measure how far the squared error of the float outputs falls from one network to the other.

    Args:
        network: The float network.
        before: One network with its rounding.
        after: The other.
        samples: Samples.
        size: Samples a run; None for as many as the graph demands, or the network takes.

    Returns:
        By how much the error relative to the outputs' energy falls, and its logarithm: a number each for every sample,
        or for every batch where the graph prescribes it, `[2, samples]`; without samples where no output is float.
    """
    unit, size = samples.unit, size or samples.batch or network.batch_size
    errors, energies = [], []
    for batch in samples.batches(size):
        expected = {
            name: value.double().cpu().numpy()
            for name, value in float_tensors(network.program, batch, network.program.outputs).items()
            if value.is_floating_point()
        }
        if not expected:
            return np.zeros((2, 0))
        if size > unit and any(value.ndim == 0 or len(value) != batch.count for value in expected.values()):
            return error_falls(network, before, after, samples, unit)
        given = [network.tensors(batch.inputs, [*expected]) for network in (before, after)]
        rows = batch.count // unit
        errors.append(np.array([[_squares(each[n] - expected[n], rows) for n in expected] for each in given]))
        energies.append(np.array([_squares(value, rows) for value in expected.values()]))
    energy = np.maximum(np.concatenate(energies, 1).mean(1, keepdims=True), _TINY)
    old, new = (np.concatenate(errors, 2) / energy).mean(1)
    return np.stack([old - new, np.log(old + _SAME) - np.log(new + _SAME)])


def _squares(values: npt.NDArray[np.floating], rows: int) -> Vector:
    """Sums of squares of so many parts of an array."""
    squares: Vector = np.square(values, dtype=np.float64).reshape(rows, -1).sum(1)
    return squares
