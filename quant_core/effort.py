"""How much the sensitivity stage may spend, counted in arithmetic so that the answer never depends on speed."""

from __future__ import annotations

from dataclasses import dataclass

from quant_core.preparation import Prepared
from quant_core.spec import FLOAT_BITS, SensitivityMethod

# About a minute in all on two cores.
_OUTPUT_MACS = 3e12
_TRACE_MACS = 1e12
_FEWEST_SAMPLES = 16
_FEWEST_PROBES = 16
_MOST_PROBES = 2000
_PROBE_PASSES = {"output": 3, "gauss_newton": 3, "hawq_v2": 8}


@dataclass(frozen=True)
class Effort:
    """Limits of the sensitivity stage.

    Attributes:
        samples: Calibration samples that are used.
        probes: Most random probes.
    """

    samples: int
    probes: int


def plan_effort(job: Prepared, samples: int, method: SensitivityMethod) -> Effort:
    """Choose how many samples and probes to spend.

    Output perturbation runs the network once for every layer and bit-width, on average over half of its length;
    a probe costs about three passes, with second derivatives about eight.

    Args:
        job: The prepared job.
        samples: Calibration samples there are.
        method: The sensitivity method.

    Returns:
        The limits; a whole number of batches where the graph fixes the batch.
    """
    macs = max(1, sum(layer.macs for layer in job.layers))
    runs = sum(bits != FLOAT_BITS for choice in job.candidates.values() for bits in choice.bits)
    affordable = int(_OUTPUT_MACS / (macs * max(1.0, runs / 2)))
    used = min(samples, max(_FEWEST_SAMPLES, affordable)) if method == "output" else samples
    batch = job.samples.batch or min(job.batch_size, used)
    used = max(batch, used // batch * batch) if job.samples.batch else used
    probes = int(_TRACE_MACS / (macs * batch * _PROBE_PASSES[method]))
    return Effort(samples=used, probes=min(_MOST_PROBES, max(_FEWEST_PROBES, probes)))
