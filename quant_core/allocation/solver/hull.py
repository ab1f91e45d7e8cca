"""The lower convex hull of all plans over one cost: a bound from below on the front, and the plans that lie on it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int16]


class Hull:
    """The linear relaxation of the front, at every cost at once, for rows added one by one.

    The hull of a sum of independent choices takes the segments of the rows' own hulls in order of slope
    (the Minkowski sum of convex curves). Every corner of it is a plan.
    """

    def __init__(self) -> None:
        self._least_cost = 0.0
        self._least_score = 0.0
        self._cheapest: list[int] = []
        self._width = np.empty(0)
        self._drop = np.empty(0)
        self._row = np.empty(0, dtype=np.intp)
        self._choice = np.empty(0, dtype=np.int16)

    def add(self, cost: Floats, score: Floats, choices: npt.NDArray[np.intp]) -> None:
        """Add one row.

        Args:
            cost: Cost of each of its choices.
            score: Score of each of its choices.
            choices: Their choice indices.
        """
        corners = _row_hull(cost, score)
        self._least_cost += float(cost[corners[0]])
        self._least_score += float(score[corners[-1]])
        width, drop = np.diff(cost[corners]), -np.diff(score[corners])
        at = np.searchsorted(-self._drop / self._width, -drop / width, side="right")
        self._width, self._drop = np.insert(self._width, at, width), np.insert(self._drop, at, drop)
        self._row = np.insert(self._row, at, len(self._cheapest))
        self._choice = np.insert(self._choice, at, choices[corners[1:]])
        self._cheapest.append(int(choices[corners[0]]))

    def corners(self) -> tuple[Floats, Floats]:
        """Give the hull of all rows so far.

        Returns:
            Costs, rising, and the bound at each; linear in between, constant after the last.
        """
        cost = self._least_cost + np.concatenate([[0.0], np.cumsum(self._width)])
        # Added up from the small end, where the sums of large scores would leave no digits.
        score = self._least_score + np.concatenate([np.cumsum(self._drop[::-1])[::-1], [0.0]])
        return cost, score

    def plans(self, corners: npt.NDArray[np.int64]) -> Rows:
        """Give the plans at some corners.

        Args:
            corners: Corner indices, rising.

        Returns:
            Corners x rows: choice indices.
        """
        state, done = np.array(self._cheapest, dtype=np.int16), 0
        plans = np.empty((len(corners), len(state)), dtype=np.int16)
        for i, corner in enumerate(corners.tolist()):
            for segment in range(done, corner):
                state[self._row[segment]] = self._choice[segment]
            plans[i], done = state, corner
        return plans


def _row_hull(cost: Floats, score: Floats) -> npt.NDArray[np.intp]:
    # The decreasing lower convex hull of one row's choices, as positions, cheapest first.
    hull: list[int] = []
    for at in np.lexsort((score, cost)).tolist():
        c, s = cost[at], score[at]
        if hull and (s >= score[hull[-1]] or c == cost[hull[-1]]):
            continue
        while len(hull) > 1:
            c0, s0, c1, s1 = cost[hull[-2]], score[hull[-2]], cost[hull[-1]], score[hull[-1]]
            if (s - s0) * (c1 - c0) > (s1 - s0) * (c - c0):
                break
            hull.pop()
        hull.append(at)
    return np.array(hull, dtype=np.intp)
