"""The plan everybody makes: the same bits for every layer."""

from __future__ import annotations

from collections.abc import Mapping

from quant_core.allocation.file_costs import all_widths
from quant_core.allocation.plan_bits import Limits, fits, scored_candidates
from quant_core.allocation.plan_problem import PlanProblem
from quant_core.spec.width import activation_of, sparse_of, weight_of

Uniform = tuple[int, Mapping[str, int]]


def largest_uniform(problem: PlanProblem, limits: Limits) -> tuple[Uniform, ...]:
    """Find the widest uniform plan within every limit; where activations are open, one for each of their bits.

    A layer that may not have those bits, or has no score at them, gets the nearest it may have, the fewer of two.

    Args:
        problem: Candidates, scores and costs.
        limits: Limits by cost.

    Returns:
        Its width, and layer name -> width; empty if no uniform plan fits.
    """
    candidates = scored_candidates(problem)
    found: dict[int | None, Uniform] = {}
    for width in reversed(all_widths(candidates)):
        if activation_of(width) in found or sparse_of(width):
            continue

        def distance(other: int, wanted: int = width) -> tuple[int, float, int, int]:
            apart = abs((activation_of(other) or 0) - (activation_of(wanted) or 0))
            return apart, sparse_of(other), abs(weight_of(other) - weight_of(wanted)), other

        bits = {name: min(choice.bits, key=distance) for name, choice in candidates.items()}
        for group in problem.ties:
            common = set.intersection(*(set(candidates[name].bits) for name in group))
            bits |= dict.fromkeys(group, min(common, key=distance))
        if width in bits.values() and fits(problem, bits, limits):
            found[activation_of(width)] = width, bits
    return tuple(found.values())
