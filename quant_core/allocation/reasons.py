"""Why a layer has its bits, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from quant_core.allocation.plan_problem import BOPS, PlanProblem
from quant_core.spec import FLOAT_BITS, format_bits
from quant_core.spec.width import KERNEL_BITS, activation_of, format_width, rank, stored_of


def explain_bits(name: str, bits: int, problem: PlanProblem) -> str:
    """Say why a layer has its bits: a rule, a tie, scores that are no numbers, or what more bits would have bought.

    Args:
        name: The layer.
        bits: Its width.
        problem: What was solved.

    Returns:
        Reasons, joined by semicolons.
    """
    candidates = problem.candidates[name]
    if len(candidates.bits) == 1:
        return candidates.reason or f"nothing but {format_width(bits)} is allowed"
    notes = [candidates.reason] if candidates.reason else []
    tied = [other for group in problem.ties if name in group for other in group if other != name]
    if tied:
        notes.append(f"tied to {', '.join(tied)}")
    scores = problem.scores[name]
    lost = [width for width in candidates.bits if not math.isfinite(scores.get(width, math.nan))]
    if lost:
        notes.append(f"non-finite at {', '.join(map(format_width, lost)).replace(' bits,', ',')}")
    left = [width for width in candidates.bits if width not in lost]
    if problem.allocation != "optimal":
        notes.append(_by_rule(name, problem))
    else:
        notes.append(_by_budget(name, bits, left, problem))
    if activation_of(bits) is not None:
        notes += _about_activations(name, bits, left, problem)
    return "; ".join(notes)


def _by_budget(name: str, bits: int, left: Sequence[int], problem: PlanProblem) -> str:
    alike = sorted((w for w in left if activation_of(w) == activation_of(bits)), key=rank)
    wider = next((w for w in alike if rank(w) > rank(bits)), None)
    if wider is None:
        return "budget: the most bits allowed"
    gain = problem.scores[name][bits] - problem.scores[name][wider]
    price = problem.files.layers[name][wider] - problem.files.layers[name][bits]
    cost = f"cost {price} bytes more" if price >= 0 else f"take {-price} bytes less"
    offer = f"{format_width(stored_of(wider))} would {cost} and {_lower(gain)}"
    return f"budget: {offer}{f', {gain / price:.2g} a byte' if price > 0 < gain else ''}"


def _about_activations(name: str, bits: int, left: Sequence[int], problem: PlanProblem) -> list[str]:
    own = activation_of(bits) or FLOAT_BITS
    notes = []
    if own < KERNEL_BITS:
        notes.append(f"{own}-bit activations are simulated, the file holds {KERNEL_BITS}")
    wider = next((w for w in left if stored_of(w) == stored_of(bits) and (activation_of(w) or 0) > own), None)
    if wider is None:
        return notes
    gain = problem.scores[name][bits] - problem.scores[name][wider]
    price = problem.costs[BOPS][name][wider] - problem.costs[BOPS][name][bits]
    kind = format_bits(activation_of(wider) or FLOAT_BITS)
    words = kind if kind == "float" else f"{kind}-bit"
    return [*notes, f"{words} activations would cost {price:.3g} bit operations more and {_lower(gain)}"]


def _lower(gain: float) -> str:
    """Say what becomes of the predicted loss: scores are measured, so that more bits may look worse."""
    return f"{'lower' if gain >= 0 else 'raise'} the predicted loss by {abs(gain):.3g}"


def _by_rule(name: str, problem: PlanProblem) -> str:
    ranked = sorted(problem.priority, key=lambda other: -problem.priority[other])
    what = "mean trace" if problem.allocation == "hawq_v2" else "importance"
    return f"{problem.allocation}: number {ranked.index(name) + 1} of {len(ranked)} by {what}"
