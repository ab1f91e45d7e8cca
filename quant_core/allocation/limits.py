"""The limits of a request, in the units of a plan's costs."""

from __future__ import annotations

from quant_core.allocation.plan_problem import BOPS, BYTES, EFFECTIVE_BITS, LATENCY, PEAK_MEMORY
from quant_core.spec import Budget, CostTable


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
