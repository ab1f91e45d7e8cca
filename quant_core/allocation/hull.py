"""The lower convex hull of all plans over one cost: a bound from below on the front."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quant_core.allocation.groups import Mask, Matrix

Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def row_hull(cost: npt.NDArray[np.float64], score: npt.NDArray[np.float64]) -> Curve:
    """Walk the decreasing lower convex hull of one row's choices.

    Args:
        cost: Cost of each choice.
        score: Score of each choice.

    Returns:
        Costs, rising, and scores, falling, of the choices on the hull.
    """
    hull: list[tuple[float, float]] = []
    for c, s in sorted(zip(cost.tolist(), score.tolist(), strict=True)):
        if hull and s >= hull[-1][1]:
            continue
        while len(hull) > 1:
            (c1, s1), (c0, s0) = hull[-1], hull[-2]
            if (s - s0) * (c1 - c0) > (s1 - s0) * (c - c0):
                break
            hull.pop()
        if hull and hull[-1][0] == c:
            hull.pop()
        hull.append((c, s))
    costs, scores = zip(*hull, strict=True)
    return np.array(costs), np.array(scores)


def lower_hull(cost: Matrix, score: Matrix, allowed: Mask) -> Curve:
    """Add the rows' hulls up: the linear relaxation of the front, at every cost at once.

    The Minkowski sum of convex curves takes their segments in order of slope.

    Args:
        cost: Rows x choices.
        score: Rows x choices.
        allowed: Rows x choices.

    Returns:
        Costs, rising, and the bound at each; linear in between, constant after the last.
    """
    start_cost, start_score = 0.0, 0.0
    steps: list[npt.NDArray[np.float64]] = []
    for row in range(len(cost)):
        costs, scores = row_hull(cost[row, allowed[row]], score[row, allowed[row]])
        start_cost, start_score = start_cost + costs[0], start_score + scores[0]
        steps.append(np.stack([np.diff(costs), np.diff(scores)]))
    width, drop = np.concatenate(steps, axis=1)
    order = np.argsort(drop / width, kind="stable")
    return (
        start_cost + np.concatenate([[0.0], np.cumsum(width[order])]),
        start_score + np.concatenate([[0.0], np.cumsum(drop[order])]),
    )
