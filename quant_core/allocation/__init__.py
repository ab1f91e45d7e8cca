"""Allocation: scores, costs and budgets in; one choice a layer, or the whole front, out."""

from quant_core.allocation.ompq import ompq_scores
from quant_core.allocation.solver.front import Front, FrontPoint, pareto_front
from quant_core.allocation.solver.monotone import solve_monotone
from quant_core.allocation.solver.problem import Plan, Problem
from quant_core.allocation.solver.solve import solve

__all__ = ["Front", "FrontPoint", "Plan", "Problem", "ompq_scores", "pareto_front", "solve", "solve_monotone"]
