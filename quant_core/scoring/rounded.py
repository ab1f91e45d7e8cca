"""Codes of every layer at every width, found on samples that are then not used to score them."""

from __future__ import annotations

from quant_core.calibration import RangeWatch, Samples, split_samples
from quant_core.preparation import Prepared
from quant_core.quantizers.moments.calibration_moments import CalibrationMoments, KeptMoments
from quant_core.quantizers.rounding.round_weights import RoundedWeights, round_weights
from quant_core.sensitivity.methods import BLIND_TO_CODES
from quant_core.spec import Request
from quant_core.spec.progress import Tell

_SCORING_SHARE = 1 / 3
_ENOUGH = 32
"""Samples to score with that need no help by others."""
_MOST_CODES = 1 << 29
"""Codes, of one byte each, that a fold may hold."""


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
    if request.by_value or samples.count < 2 * samples.unit:
        return samples, samples
    return split_samples(samples, _SCORING_SHARE, request.seed)


def tellers(samples: Samples, unseen: Samples, request: Request) -> Samples:
    """Choose the samples to score with.

    A trace or an eigenvalue is that of the float weights, and of a rounding only its squared norm counts beside it, so
    that samples which codes were fitted to tell as much as others.

    Args:
        samples: Samples that may decide something.
        unseen: Those of them that no code was fitted to.
        request: The method that scores.

    Returns:
        All samples, or for methods that look at what rounded weights do the unseen ones.
    """
    return samples if request.sensitivity in BLIND_TO_CODES else unseen


def further_folds(
    seen: Samples, unseen: Samples, rounded: RoundedWeights, request: Request
) -> tuple[tuple[Samples, Samples], ...]:
    """Let each half of the samples to round with change places with those to score on.

    Scores are means over samples, and few samples give a plan much chance to follow. In three folds each sample scores
    codes that it has not seen, so that three times as many tell, at three times the work (cross-fitting: Chernozhukov
    et al., Double/debiased machine learning, arXiv:1608.00060).

    Args:
        seen: Samples to round with.
        unseen: Samples to score with.
        rounded: Every layer at each of its widths, as each fold has it once more.
        request: How codes are chosen, the method that scores them, the effort, and the seed of the choice.

    Returns:
        Two more pairs of samples to round with and to score with; none but at the effort `best`, and none where no
        samples stand apart, or so many that the mean over them is known, or codes would take too much memory.
    """
    codes = sum(weight.codes.size for widths in rounded.values() for weight in widths.values())
    known = seen is unseen or unseen.count >= _ENOUGH
    if request.effort != "best" or request.sensitivity != "output" or known or codes > _MOST_CODES:
        return ()
    if seen.count < 2 * seen.unit:
        return ()
    one, other = split_samples(seen, 1 / 2, request.seed)
    return (other.joined(unseen), one), (one.joined(unseen), other)


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
    kept = KeptMoments(limit=0) if kept is None else kept
    calibration = CalibrationMoments(job.network, samples, request.seed, kept=kept, watch=watch)
    return round_weights(calibration, job.stored, request, on_progress=tell)
