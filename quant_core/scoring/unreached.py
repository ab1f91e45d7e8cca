"""Layers that no sample reaches: nothing tells what their bits are worth, so they are spared the fewest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np

from quant_core.allocation.candidates import Candidates
from quant_core.allocation.file_costs import smallest_kept
from quant_core.errors import name_some
from quant_core.ingest.constant_tensors import stored_tensor
from quant_core.ingest.layer import Layer
from quant_core.preparation import Prepared
from quant_core.preparation.open_widths import open_widths
from quant_core.scoring.scored import Scored
from quant_core.spec import FLOAT_BITS, Budget, LayerSensitivity, QuantizeSpec

_MOST_BITS = 8
_SCALES = 1  # bit of each weight's share that steps and names may take
_SHOWN = 4
_EXACT = 1e-6
"""Share of a weight's energy (60 dB) up to which rounding leaves it as it is: 8 bits seldom come to 55."""
_SPARED = "were not cut below what the budget leaves a weight"
_LOST = "may be the fewest"


def spare_unreached(job: Prepared, scored: Scored, spec: QuantizeSpec) -> tuple[Prepared, Scored]:
    """Keep layers that no sample reaches from the fewest bits, which cost nothing that could be measured.

    They are weights of a branch that no sample takes, of an expert that none picks, or of an output that does not
    count; not those of a binarized network, which few bits hold exactly. They get a bit less than the budget leaves a
    weight on average that no rule decides on, or more, and fewer where the budget would be out of reach; under a budget
    of bit operations or latency any bits.

    Args:
        job: The prepared job.
        scored: Its sensitivities.
        spec: The request.

    Returns:
        The job with fewer candidates for such layers, and the sensitivities with a warning; as they were where there
        are none, and for layers that rules narrow.
    """
    free = {
        layer.name: layer
        for layer in job.layers
        if job.candidates[layer.name].reason is None and len(job.candidates[layer.name].bits) > 1
    }
    names = [
        row.name
        for row in scored.table.layers
        if row.name in free and _is_unreached(row, free[row.name], job)
    ]
    if not names:
        return job, scored
    for bits in _bits_to_try(job, names, spec.budget):
        candidates = {
            name: _at_least(choice, bits) if name in names else choice
            for name, choice in job.candidates.items()
        }
        if _is_in_reach(job, candidates, spec):
            break
    shown = name_some(names, _SHOWN)
    told = (
        f"no answer that counts depends on {shown} with these samples: bits could not be judged there, and "
        f"{_SPARED if bits else _LOST}. Give samples that take every branch, or pin these bits."
    )
    return replace(job, candidates=candidates), replace(scored, warnings=(*scored.warnings, told))


def _bits_to_try(job: Prepared, names: Collection[str], budget: Budget) -> Iterator[float]:
    """The fewest bits that such layers may be given, falling to any."""
    if budget.bops is None and budget.latency is None:  # what these leave a weight is not known
        left = _bits_left(job, budget)
        bits = min(left) - _SCALES if left else _MOST_BITS
        yield from sorted(
            {width for name in names for width in job.candidates[name].bits if width <= bits}, reverse=True
        )
    yield 0


def _bits_left(job: Prepared, budget: Budget) -> list[float]:
    """What each limit leaves a weight that no rule decides on, where those of others get the fewest."""
    ruled = [layer for layer in job.layers if job.candidates[layer.name].reason is not None]
    total = sum(layer.parameters for layer in job.layers)
    free = total - sum(layer.parameters for layer in ruled)
    left = []
    if budget.effective_bits is not None:
        taken = sum(min(job.candidates[layer.name].bits) * layer.parameters for layer in ruled)
        left.append((budget.effective_bits * total - taken) / free)
    size = budget.limit_bytes(job.source.file_bytes)
    if size is not None:
        stored = sum(min(job.costs.layers[layer.name].values()) for layer in ruled)
        left.append(8 * (size - job.costs.base - stored) / free)
    return left


def _is_in_reach(job: Prepared, candidates: Mapping[str, Candidates], spec: QuantizeSpec) -> bool:
    budget, size = spec.budget, spec.budget.limit_bytes(job.source.file_bytes)
    if budget.effective_bits is not None:
        fewest = sum(min(candidates[layer.name].bits) * layer.parameters for layer in job.layers)
        if fewest > budget.effective_bits * sum(layer.parameters for layer in job.layers):
            return False
    if size is None:
        return True
    widths = open_widths(candidates, job.layers, job.model, spec, job.target)
    return smallest_kept(widths, job.costs) <= size


def _is_unreached(row: LayerSensitivity, layer: Layer, job: Prepared) -> bool:
    """Whether rounding changes the weights, and no answer."""
    if any(row.sensitivity.values()):
        return False
    weight = stored_tensor(job.model, layer.weight).numpy().astype(np.float32, copy=False)
    exact = _EXACT * float(np.vdot(weight, weight))
    return any(row.perturbation.get(bits, 0) > exact for bits in row.sensitivity)


def _at_least(choice: Candidates, bits: float) -> Candidates:
    integers = [width for width in choice.bits if width != FLOAT_BITS]
    fewest = max((width for width in integers if width <= bits), default=min(choice.bits))
    kept = tuple(width for width in choice.bits if width >= fewest)
    return Candidates(kept, "bits spared, for no answer that counts depends on it")
