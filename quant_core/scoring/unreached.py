"""Layers that no sample reaches: nothing tells what their bits are worth, so they are spared the fewest."""

from __future__ import annotations

from dataclasses import replace

from quant_core.allocation.candidates import Candidates
from quant_core.preparation import Prepared
from quant_core.preparation.equalizing import expected_bits
from quant_core.scoring.scored import Scored
from quant_core.spec import FLOAT_BITS, LayerSensitivity, QuantizeSpec

_MOST_BITS = 8
_SCALES = 1  # bit of each weight's share that steps and names may take
_SHOWN = 4
_SPARED = "were not cut below what the budget leaves a weight"
_LOST = "may be the fewest"


def spare_unreached(job: Prepared, scored: Scored, spec: QuantizeSpec) -> tuple[Prepared, Scored]:
    """Keep layers that no sample reaches from the fewest bits, which cost nothing that could be measured.

    They are weights of a branch that no sample takes, of an expert that none picks, or of an output that does not
    count. They get a bit less than the budget leaves a weight on average, or more, so that the budget stays in reach;
    under a budget of bit operations or latency any bits.

    Args:
        job: The prepared job.
        scored: Its sensitivities.
        spec: The request.

    Returns:
        The job with fewer candidates for such layers, and the sensitivities with a warning; as they were where there
        are none, and for layers that rules narrow.
    """
    free = {name for name, choice in job.candidates.items() if choice.reason is None and len(choice.bits) > 1}
    names = [row.name for row in scored.table.layers if row.name in free and _is_unreached(row)]
    if not names:
        return job, scored
    budget = spec.budget
    limited = budget.effective_bits is not None or budget.limit_bytes(job.source.file_bytes) is not None
    bits = expected_bits(job, budget) - _SCALES if limited else _MOST_BITS
    if budget.bops is not None or budget.latency is not None:
        bits = 0  # what these leave a weight is not known, and they must stay in reach
    candidates = {
        name: _at_least(choice, bits) if name in names else choice for name, choice in job.candidates.items()
    }
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    told = (
        f"no answer that counts depends on {shown} with these samples: bits could not be judged there, and "
        f"{_SPARED if bits else _LOST}. Give samples that take every branch, or pin these bits."
    )
    return replace(job, candidates=candidates), replace(scored, warnings=(*scored.warnings, told))


def _is_unreached(row: LayerSensitivity) -> bool:
    """Whether rounding changes the weights, and no answer."""
    changed = {bits for bits, error in row.perturbation.items() if error > 0}
    return bool(changed & row.sensitivity.keys()) and not any(row.sensitivity.values())


def _at_least(choice: Candidates, bits: float) -> Candidates:
    integers = [width for width in choice.bits if width != FLOAT_BITS]
    fewest = max((width for width in integers if width <= bits), default=min(choice.bits))
    return Candidates(
        tuple(width for width in choice.bits if width >= fewest), "no answer that counts depends on it"
    )
