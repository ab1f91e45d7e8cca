"""From predicted to measured: the best plan on paper against the uniform one, then refined by measurement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from quant_core.allocation.healing import healed
from quant_core.allocation.plan_bits import Limits, describe, plan_bits
from quant_core.allocation.plan_problem import EFFECTIVE_BITS, PlanProblem
from quant_core.spec import BitPlan
from quant_core.spec.progress import Tell
from quant_core.spec.trials import PlanTrial, RefinementRound
from quant_core.spec.width import format_width
from quant_core.trials.meter import Measured, PlanMeter
from quant_core.trials.refine import refine
from quant_core.trials.uniform import largest_uniform

REFINED = "refined"
_TRUSTED = 0.2


@dataclass(frozen=True)
class Settled:
    """A plan and what it was held against.

    Attributes:
        plan: The plan.
        trials: Every whole plan that was a candidate, measured alike.
        refinement: What each round of refinement did.
    """

    plan: BitPlan
    trials: tuple[PlanTrial, ...]
    refinement: tuple[RefinementRound, ...]


def settle(
    problem: PlanProblem,
    limits: Limits,
    meter: PlanMeter,
    *,
    rounds: int,
    on_progress: Tell,
) -> Settled:
    """Choose the plan of least measured loss among the solved one, the largest uniform one, and what refining gives.

    It is refined where the sum of scores mispredicts its loss. An allocation asked for by name, for comparison,
    is measured beside the uniform plan but kept as it is.

    Args:
        problem: Scores, candidates, costs.
        limits: Limits by cost.
        meter: Measures plans.
        rounds: Most rounds of refinement.
        on_progress: Called with the fraction done and a message; may raise to stop.

    Returns:
        The plan and what it was held against.
    """
    best = plan_bits(problem, limits, healed(problem))
    chosen: str = problem.allocation
    history: tuple[RefinementRound, ...] = ()
    candidates: dict[str, Mapping[str, int]] = {chosen: best.widths}
    for width, bits in largest_uniform(problem, limits):
        if bits != best.widths:
            candidates[f"uniform {format_width(width)}"] = bits
    measured = {name: meter.loss(bits) for name, bits in candidates.items()}
    if problem.allocation == "optimal":
        chosen = min(measured, key=lambda name: _rank(measured[name]))
        if misled(problem.loss(candidates[chosen]), measured[chosen]):
            refined, history = refine(
                problem, candidates[chosen], limits, meter, rounds=rounds, on_progress=on_progress
            )
            if refined != candidates[chosen]:
                candidates[REFINED], measured[REFINED] = refined, meter.loss(refined)
                chosen = REFINED
    plan = best
    if chosen != problem.allocation:
        plan = describe(problem, candidates[chosen], limits, optimal=False, gap=None, solver=chosen)
        plan = _with_reasons(plan, best, chosen)
    trials = tuple(
        PlanTrial(
            name=name,
            predicted_loss=problem.loss(bits),
            measured_loss=measured[name].mean,
            stderr=measured[name].stderr if math.isfinite(measured[name].stderr) else None,
            bytes=problem.files.total(bits),
            effective_bits=problem.cost(EFFECTIVE_BITS, bits),
            samples=meter.samples,
            chosen=name == chosen,
        )
        for name, bits in candidates.items()
        if math.isfinite(measured[name].mean)
    )
    return Settled(plan, trials, history)


def misled(predicted: float, measured: Measured) -> bool:
    """Tell whether scores taken one layer at a time mislead about a plan, so that measuring around it can help.

    Where the sum foretells the measured loss, what neighbours of the plan seem to gain on these few samples is chance:
    on others it is gone. A single sample cannot tell what is chance.

    Args:
        predicted: Predicted loss increase of the plan.
        measured: Its measured one.

    Returns:
        True if the two differ by more than a fifth and by more than two standard errors, which takes two samples.
    """
    apart, error = abs(measured.mean - predicted), measured.stderr
    if not (math.isfinite(apart) and math.isfinite(error)):
        return False
    return apart > max(_TRUSTED * abs(measured.mean), 2 * error)


def _rank(measured: Measured) -> float:
    return measured.mean if math.isfinite(measured.mean) else math.inf


def _with_reasons(plan: BitPlan, solved: BitPlan, chosen: str) -> BitPlan:
    """Say of layers that differ from the solved plan what moved them."""
    before = solved.widths
    why = "measured around the plan" if chosen == REFINED else f"the {chosen} plan measured better"
    layers = tuple(
        layer
        if layer.width == before[layer.name]
        else layer.model_copy(
            update={"reason": f"{why}: {format_width(before[layer.name])} on paper; {layer.reason}"}
        )
        for layer in plan.layers
    )
    return plan.model_copy(update={"layers": layers})
