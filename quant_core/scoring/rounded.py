"""Codes of every layer at every width, found on samples that are then not used to score them."""

from __future__ import annotations

from quant_core.calibration import RangeWatch, Samples, split_samples
from quant_core.preparation import Prepared
from quant_core.quantizers.input_moments import KeptMoments
from quant_core.quantizers.rounding import RoundedWeights, round_weights
from quant_core.spec import Request
from quant_core.spec.progress import Tell

_SCORING_SHARE = 1 / 3


def apart(samples: Samples, request: Request) -> tuple[Samples, Samples]:
    """Take samples to round with apart from others to score the result on.

    GPTQ fits its codes to the inputs it sees. Scored on the same few samples, a layer with more inputs than samples
    looks harmless at any width. Codes rounded one by one have seen no sample, so that all are left to score them on.

    Args:
        samples: Samples that may decide something.
        request: How codes are chosen, the effort, and the seed of the choice.

    Returns:
        Samples to round with, and samples to score with; all of them twice where there are too few to share.
    """
    if request.by_value or samples.count < 2 * (samples.batch or 1):
        return samples, samples
    return split_samples(samples, _SCORING_SHARE, request.seed)


def round_candidates(
    job: Prepared,
    samples: Samples,
    request: Request,
    tell: Tell,
    kept: KeptMoments | None = None,
    watch: RangeWatch | None = None,
) -> RoundedWeights:
    """Round every layer at each of its candidate widths.

    Args:
        job: The prepared job.
        samples: Samples to round with.
        request: What is asked.
        tell: Called with the fraction done and a message.
        kept: Where moments of layers' inputs are left for the next time.
        watch: Shown the run over the samples that moments are taken from.

    Returns:
        Layer name -> bits -> codes and scales.
    """
    return round_weights(
        job.program,
        job.model,
        job.layers,
        job.stored,
        samples,
        request,
        batch_size=job.batch_size,
        device=job.device,
        seed=request.seed,
        on_progress=tell,
        kept=kept,
        watch=watch,
    )
