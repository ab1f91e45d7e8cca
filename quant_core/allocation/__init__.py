"""Allocation: scores, costs and budgets in; one choice a layer, or the whole front, out."""

from quant_core.allocation.front import Front, FrontPoint, pareto_front
from quant_core.allocation.problem import Plan, Problem
from quant_core.allocation.solve import solve

__all__ = ["Front", "FrontPoint", "Plan", "Problem", "pareto_front", "solve"]
