"""Local search on the quadratic objective: change one row, or two at once, while that helps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quant_core.allocation.solver.forbidden import Mask, conflict_table
from quant_core.allocation.solver.groups import Groups
from quant_core.allocation.solver.read_problem import Matrix

Rows = npt.NDArray[np.intp]

_ROUND_OFF = 1e-12


@dataclass(frozen=True)
class _Step:
    rows: tuple[int, ...]
    choices: tuple[int, ...]


def swap_search(groups: Groups, rows: Rows) -> Rows:
    """Improve a plan until no single change and no exchange between two rows helps.

    Each step takes the best change within every budget and without a forbidden pair: first of one row, and where no
    single change helps, of two rows together (one gives up bits that the other gets). The gain of changing a to k
    and b to l is `d[a, k] + d[b, l] + P[a, k, b, l] - P[a, c_a, b, l] - P[a, k, b, c_b] + P[a, c_a, b, c_b]`, where
    d is the change that each makes alone. All pairs are looked at in one pass over the table. Equal gains go to the
    earlier rows.

    Args:
        groups: The problem, with interactions.
        rows: A plan within the budgets.

    Returns:
        A plan within the budgets, at least as good.
    """
    rows = rows.copy()
    assert groups.pairs is not None
    pairs = groups.pairs
    index = np.arange(len(rows))
    masked = np.where(groups.allowed, groups.sensitivity, np.inf)
    field = masked + pairs[:, :, index, rows].sum(axis=2)
    apart = conflict_table(groups.conflicts, masked.shape) if groups.conflicts else None
    best = groups.objective(rows)
    noise = _ROUND_OFF * (float(np.abs(groups.sensitivity).max()) + float(np.abs(pairs).max()))
    while True:
        alone = field - field[index, rows][:, None]
        step = _best_single(groups, rows, alone, noise, apart) or _best_pair(
            groups, rows, alone, noise, apart
        )
        if step is None:
            return rows
        moved = rows.copy()
        moved[list(step.rows)] = step.choices
        value = groups.objective(moved)
        if not (value < best and groups.fits(moved)):  # the gain was round-off
            return rows
        for row, choice in zip(step.rows, step.choices, strict=True):
            field += pairs[:, :, row, choice] - pairs[:, :, row, rows[row]]
        rows, best = moved, value


def quadratic_bound(groups: Groups) -> Matrix:
    """Linear scores that add up to no more than the objective of any plan (Gilmore 1962, Lawler 1963).

    `sensitivity[a, k] + 1/2 sum_b min_l P[a, k, b, l]`: half of each interaction is charged to either row, at the least
    it can be.

    Args:
        groups: The problem, with interactions.

    Returns:
        Rows x choices; 0 where not allowed.
    """
    assert groups.pairs is not None
    least = np.where(groups.allowed, groups.pairs, np.inf).min(axis=3)
    return np.where(groups.allowed, groups.sensitivity + 0.5 * least.sum(axis=2), 0.0)


def _extra(groups: Groups, rows: Rows) -> list[tuple[Matrix, float]]:
    # Per budget: what each choice costs more than the present one, and what may be spent.
    index = np.arange(len(rows))
    found = []
    for name, limit in groups.budgets.items():
        cost = groups.costs[name]
        found.append((cost - cost[index, rows][:, None], max(0.0, limit - groups.cost(name, rows))))
    return found


def _best_single(groups: Groups, rows: Rows, alone: Matrix, noise: float, apart: Mask | None) -> _Step | None:
    fits = np.ones_like(groups.allowed)
    for extra, room in _extra(groups, rows):
        fits &= extra <= room
    if apart is not None:
        fits &= ~apart[:, :, np.arange(len(rows)), rows].any(axis=2)
    gain = np.where(fits, alone, np.inf)
    row, choice = np.unravel_index(int(gain.argmin()), gain.shape)
    return _Step((int(row),), (int(choice),)) if gain[row, choice] < -noise else None


def _best_pair(groups: Groups, rows: Rows, alone: Matrix, noise: float, apart: Mask | None) -> _Step | None:
    assert groups.pairs is not None
    count, choices = alone.shape
    if count < 2:
        return None
    index = np.arange(count)
    to_present = groups.pairs[:, :, index, rows]  # rows x choices x rows
    between = to_present[index, rows]  # rows x rows
    one_sided = to_present - between[:, None, :]
    change = groups.pairs - one_sided[:, :, :, None]
    change -= to_present.transpose(2, 0, 1)[:, None, :, :]
    change += alone[:, :, None, None]
    change += alone
    for extra, room in _extra(groups, rows):
        np.copyto(change, np.inf, where=extra[:, :, None, None] + extra > room)
    if apart is not None:
        to_plan = apart[:, :, index, rows]  # rows x choices x rows
        # Excluded by a third row: by more of the plan than the choice that the other one gives up.
        third = to_plan.sum(axis=2)[:, :, None] > to_plan
        np.copyto(change, np.inf, where=apart | third[:, :, :, None])
        np.copyto(change, np.inf, where=third.transpose(2, 0, 1)[:, None, :, :])
    change[index, :, index, :] = np.inf
    at = np.unravel_index(int(change.argmin()), (count, choices, count, choices))
    if not change[at] < -noise:
        return None
    a, k, b, choice = map(int, at)
    return _Step((a, b), (k, choice))
