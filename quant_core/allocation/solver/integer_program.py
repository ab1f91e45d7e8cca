"""The integer program of an allocation, built with PuLP and handed to HiGHS or CBC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pulp

from quant_core.allocation.solver.groups import Groups
from quant_core.allocation.solver.read_problem import Mask
from quant_core.errors import InternalError, SpecError

Solver = Literal["highs", "cbc"]
Outcome = Literal["optimal", "feasible", "infeasible", "unknown"]

TRUSTED = 1e-2
"""Share of the expected objective below which the solver's tolerances would show, and the scale is set anew."""

_SCALED_OBJECTIVE = 1e5
_REFUSALS = 100


@dataclass(frozen=True, eq=False)
class Solution:
    """What the solver brought back.

    Attributes:
        outcome: `optimal` and `infeasible` are proofs; `feasible` is a plan without a proof.
        rows: Choice index of each row, checked against the budgets; None without a plan.
        bound: Lower bound on the sum of row sensitivities that the solver states; minus infinity without one.
    """

    outcome: Outcome
    rows: npt.NDArray[np.intp] | None
    bound: float


def make_solver(solver: str, time_limit: float | None) -> Any:
    """Set up a PuLP solver: no gap, one thread, fixed seed, silent.

    Args:
        solver: `highs` or `cbc`.
        time_limit: Seconds, or None for no limit.

    Returns:
        The PuLP solver.

    Raises:
        SpecError: If the solver is unknown or not installed.
    """
    if solver == "highs":
        made = pulp.HiGHS(
            msg=False,
            gapRel=0.0,
            gapAbs=0.0,
            threads=1,
            timeLimit=time_limit,
            parallel="off",
            random_seed=0,
            presolve="off",  # 1.15 calls some problems infeasible that have plans; ours are reduced before
            mip_feasibility_tolerance=1e-9,
            primal_feasibility_tolerance=1e-9,
        )
        package = "highspy"
    elif solver == "cbc":
        bundled = pulp.PULP_CBC_CMD.pulp_cbc_path
        made = pulp.COIN_CMD(msg=False, gapRel=0.0, gapAbs=0.0, timeLimit=time_limit, path=bundled)
        package = "pulp[cbc]"
    else:
        raise SpecError(f"unknown solver {solver!r}.", remedy="Use highs or cbc.", where="solver")
    if not made.available():
        raise SpecError(
            f"the {solver} solver is not installed.", remedy=f"pip install {package}", where="solver"
        )
    return made


def minimise(
    groups: Groups, keep: Mask, magnitude: float, solver: Solver, time_limit: float | None
) -> Solution:
    """Find the least sum of row sensitivities within the budgets, over the kept choices.

    One binary variable for each row and kept choice; of two that are a forbidden pair at most one is 1. Rows and
    objective are shifted by their row minima and rescaled, since solvers compare with absolute tolerances. A plan
    that only fits within the solver's tolerance is cut off, and the program solved again.

    Args:
        groups: The problem.
        keep: Rows x choices to choose from.
        magnitude: Size of the shifted objective that is expected; sets the objective's scale.
        solver: `highs` or `cbc`.
        time_limit: Seconds for each solve, or None.

    Returns:
        The plan found, with what was proved about it.

    Raises:
        InternalError: If the solver keeps on returning plans that break a budget.
    """
    base = np.where(keep, groups.sensitivity, np.inf).min(axis=1)
    scale = _SCALED_OBJECTIVE / magnitude if magnitude > 0 else 1.0
    program = pulp.LpProblem("allocation", pulp.LpMinimize)
    x = {
        (int(row), int(k)): program.add_variable(f"x_{row}_{k}", 0, 1, pulp.LpInteger)
        for row, k in np.argwhere(keep)
    }
    program += pulp.lpSum(
        scale * float(groups.sensitivity[row, k] - base[row]) * variable for (row, k), variable in x.items()
    )
    for row in range(len(keep)):
        program += pulp.lpSum(x[row, int(k)] for k in np.flatnonzero(keep[row])) == 1
    for a, k, b, m in groups.conflicts:
        if keep[a, k] and keep[b, m]:
            program += x[a, k] + x[b, m] <= 1
    for name, limit in groups.budgets.items():
        cost = groups.costs[name]
        least = np.where(keep, cost, np.inf).min(axis=1)
        width = float(np.where(keep, cost - least[:, None], 0.0).max())
        if width > 0:
            room = limit - float(least.sum()) + groups.slack(name)
            program += (
                pulp.lpSum(
                    float(cost[row, k] - least[row]) / width * variable for (row, k), variable in x.items()
                )
                <= room / width
            )
    for _ in range(_REFUSALS):
        program.solve(make_solver(solver, time_limit))
        # `status` says Optimal for a plan the solver was stopped with; only `sol_status` tells them apart.
        # CBC's "Integer infeasible" reaches `status` alone.
        if program.sol_status == pulp.LpSolutionInfeasible or program.status == pulp.LpStatusInfeasible:
            return Solution("infeasible", None, np.inf)
        rows = _read_rows(x, len(keep))
        proved = program.sol_status == pulp.LpSolutionOptimal
        bound = float(base.sum()) + _stated_bound(program, solver) / scale
        if rows is None:
            if proved:
                raise InternalError(f"{solver} calls a plan optimal that leaves a layer without a choice")
            return Solution("unknown", None, bound)
        if groups.fits(rows):
            return Solution("optimal" if proved else "feasible", rows, bound)
        program += pulp.lpSum(x[row, int(k)] for row, k in enumerate(rows)) <= len(rows) - 1
    raise InternalError(f"{solver} returned {_REFUSALS} plans in a row that break a budget")


def _read_rows(x: dict[tuple[int, int], Any], count: int) -> npt.NDArray[np.intp] | None:
    rows = np.full(count, -1, dtype=np.intp)
    for (row, k), variable in x.items():
        value = variable.varValue
        if value is not None and round(value) == 1:
            if rows[row] >= 0 or abs(value - 1) > 1e-4:
                return None
            rows[row] = k
    return None if (rows < 0).any() else rows


def _stated_bound(program: Any, solver: Solver) -> float:
    # HiGHS states its dual bound; CBC's solution file does not.
    return float(program.solverModel.getInfo().mip_dual_bound) if solver == "highs" else -np.inf
