"""How much the sensitivity stage may spend, counted in arithmetic so that the answer never depends on speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quant_core.ingest.macs import affordable_samples
from quant_core.preparation import Prepared
from quant_core.spec import FLOAT_BITS, SensitivityMethod

# About a minute in all on two cores.
_OUTPUT_MACS = 3e12
_TRACE_MACS = 1e12
_FEWEST_SAMPLES, _FAST_SAMPLES = 16, 32
_FEWEST_PROBES = 16
_MOST_PROBES = 2000
_HESSIAN = frozenset({"hawq_v2", "hutch++", "hawq"})
_FIRST_PASSES, _SECOND_PASSES = 3, 8
_RUNS: Mapping[SensitivityMethod, int] = {"output": 1, "interaction": 1, "pqi": 3 * 16}
"""Passes that a method makes for every layer, bit-width and sample."""

_SWEEPS: Mapping[SensitivityMethod, int] = {"hawq": 2 * 10, "hutch++": 2 * 15}
"""Passes that a method makes for every layer and sample: two in each of its sweeps."""


@dataclass(frozen=True)
class Effort:
    """Limits of the sensitivity stage.

    Attributes:
        samples: Calibration samples that are used.
        probes: Most random probes.
    """

    samples: int
    probes: int


def plan_effort(job: Prepared, samples: int, method: SensitivityMethod, *, fast: bool = False) -> Effort:
    """Choose how many samples and probes to spend.

    A measured method runs the network for every layer and bit-width, on average over half of its length; the path
    integral takes sixteen gradients; eigenvalues and Hutch++ take products with all samples. A
    probe costs about three passes, with second derivatives about eight.

    Args:
        job: The prepared job.
        samples: Calibration samples there are.
        method: The sensitivity method.
        fast: Whether some dozens of samples must do.

    Returns:
        The limits; a whole number of batches where the graph fixes the batch.
    """
    runs = sum(bits != FLOAT_BITS for choice in job.candidates.values() for bits in choice.bits)
    passes_each = runs / 2 * _RUNS.get(method, 0) + len(job.layers) * _SWEEPS.get(method, 0)
    affordable = affordable_samples(job.layers, _OUTPUT_MACS, max(1.0, passes_each))
    used = min(samples, max(_FEWEST_SAMPLES, affordable)) if passes_each else samples
    if fast:
        used = min(used, _FAST_SAMPLES)
    batch = job.samples.batch or min(job.batch_size, used)
    used = max(batch, used // batch * batch) if job.samples.batch else used
    passes = _SECOND_PASSES if method in _HESSIAN else _FIRST_PASSES
    probes = affordable_samples(job.layers, _TRACE_MACS, batch * passes)
    return Effort(samples=used, probes=min(_MOST_PROBES, max(_FEWEST_PROBES, probes)))
