"""Peak activation memory as a budget: a largest sum, so one linear limit for each step of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from quant_core.allocation.candidates import Candidates
from quant_core.allocation.plan_problem import PEAK_MEMORY, PlanProblem
from quant_core.errors import InfeasibleBudgetError

Limits = Mapping[str, float]


def spell_out(problem: PlanProblem, limits: Limits) -> dict[str, float]:
    """Put a limit on every step of a run in place of one on the peak.

    Args:
        problem: What each step holds.
        limits: Limits by cost.

    Returns:
        Limits by cost, linear all of them.
    """
    if PEAK_MEMORY not in limits:
        return dict(limits)
    peak = limits[PEAK_MEMORY]
    return {name: limit for name, limit in limits.items() if name != PEAK_MEMORY} | {
        step: peak - fixed for step, (fixed, _) in problem.peaks.items()
    }


def check_peak(problem: PlanProblem, candidates: Mapping[str, Candidates], limits: Limits) -> None:
    """Refuse a peak that no plan keeps, whatever else it costs.

    The fewest activation bits of every layer make all steps as small as they get.

    Args:
        problem: What each step holds, and ties.
        candidates: Layer name -> bits with a finite score.
        limits: Limits by cost.

    Raises:
        InfeasibleBudgetError: If even the smallest peak is above the limit.
    """
    if PEAK_MEMORY not in limits:
        return
    together = {name: group for group in problem.ties for name in group}
    open_to = {
        name: set.intersection(*(set(candidates[member].bits) for member in together.get(name, (name,))))
        for name in candidates
    }
    smallest = max(
        fixed + sum(min((table[bits] for bits in open_to[name]), default=0.0) for name, table in held.items())
        for fixed, held in problem.peaks.values()
    )
    if smallest > limits[PEAK_MEMORY] * (1 + 1e-12):
        rules = sorted({choice.reason for choice in candidates.values() if choice.reason is not None})
        error = _infeasible(limits[PEAK_MEMORY], smallest, f" with {'; '.join(rules)}" if rules else "")
        raise error


def explain_peak(
    problem: PlanProblem, limits: Limits, solve: Callable[[Limits], Mapping[str, int] | None]
) -> InfeasibleBudgetError | None:
    """Find the smallest peak that can be reached beside the other limits, by bisection.

    Args:
        problem: What each step holds.
        limits: Limits by cost, the peak among them, that no plan keeps.
        solve: Limits -> a plan within them, or None.

    Returns:
        The error to raise; None if the other limits are too much already.
    """
    others = {name: limit for name, limit in limits.items() if name != PEAK_MEMORY}
    plan = solve(others)
    if plan is None:
        return None
    low, high = math.floor(limits[PEAK_MEMORY]), math.ceil(problem.cost(PEAK_MEMORY, plan))
    while high - low > 1:
        middle = (low + high) // 2
        found = solve({**others, PEAK_MEMORY: float(middle)})
        low, high = (middle, high) if found is None else (low, math.ceil(problem.cost(PEAK_MEMORY, found)))
    return _infeasible(limits[PEAK_MEMORY], high, f" within the budget for {' and '.join(others)}")


def _infeasible(limit: float, reachable: float, beside: str) -> InfeasibleBudgetError:
    least = math.ceil(reachable)
    return InfeasibleBudgetError(
        f"a peak of {limit:.12g} bytes of activations cannot be met: the smallest reachable is {least}{beside}.",
        remedy=f"Allow at least {least} bytes, activations of fewer bits, or fewer pins.",
        where=PEAK_MEMORY,
    )
