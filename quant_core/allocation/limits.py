"""The limits of a request, in the units of a plan's costs."""

from __future__ import annotations

from quant_core.allocation.peak_memory import check_peak
from quant_core.allocation.plan_problem import (
    BOPS,
    BYTES,
    EFFECTIVE_BITS,
    LATENCY,
    PEAK_MEMORY,
    PlanProblem,
    layer_costs,
)
from quant_core.allocation.solver.infeasible import number, rounded_up, with_rules
from quant_core.errors import InfeasibleBudgetError
from quant_core.spec import Budget, CostTable

_SLACK = 1e-9
_UNITS = {LATENCY: " ms"}


def read_limits(budget: Budget, costs: CostTable) -> dict[str, float]:
    """Turn the limits of a request into those of a plan.

    Args:
        budget: What was asked.
        costs: The cost table, which ratios refer to.

    Returns:
        Cost name -> the most a plan may cost; the accuracy band is no part of it.
    """
    limits: dict[str, float] = {}
    size = budget.limit_bytes(costs.float_bytes)
    if size is not None:
        limits[BYTES] = size
    if budget.effective_bits is not None:
        limits[EFFECTIVE_BITS] = budget.effective_bits
    if budget.bops is not None:
        limits[BOPS] = budget.bops * costs.float_bops if budget.bops <= 1 else budget.bops
    if budget.peak_memory is not None:
        share = budget.peak_memory <= 1
        limits[PEAK_MEMORY] = budget.peak_memory * (costs.float_peak_memory if share else 1)
    if budget.latency is not None:
        limits[LATENCY] = budget.latency
    return limits


def check_reach(budget: Budget, costs: CostTable) -> None:
    """Refuse what no choice of bits can meet, before anything is measured.

    Layers are taken one by one, as if other budgets were not there, and ties for peak memory alone; bytes have a check
    of their own.

    Args:
        budget: What was asked.
        costs: The cost table.

    Raises:
        InfeasibleBudgetError: If the cheapest choice of every layer is above a limit.
    """
    limits = read_limits(budget, costs)
    for name, by_layer in layer_costs(costs).items():
        if name not in limits:
            continue
        least = sum(min(choices.values()) for choices in by_layer.values())
        if least > limits[name] * (1 + _SLACK):
            unit = _UNITS.get(name, "")
            error = InfeasibleBudgetError(
                f"the budget is {number(limits[name])}{unit}, but the smallest reachable value is "
                f"{number(least)}{unit}.",
                remedy=f"Raise the budget to at least {rounded_up(least)}, or allow fewer bits.",
                where=name,
            )
            refusal = with_rules(error, [layer.reason for layer in costs.layers])
            raise refusal
    problem = PlanProblem.priced(costs)
    check_peak(problem, problem.candidates, limits)
