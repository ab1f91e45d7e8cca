"""The lower convex hull of all plans over one cost: a bound from below on the front."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Hull:
    """The linear relaxation of the front, at every cost at once, for rows added one by one.

    The hull of a sum of independent choices takes the segments of the rows' own hulls in order of slope
    (the Minkowski sum of convex curves).
    """

    def __init__(self) -> None:
        self._start = np.zeros(2)
        self._segments = np.empty((2, 0))

    def add(self, cost: Floats, score: Floats) -> None:
        """Add one row.

        Args:
            cost: Cost of each of its choices.
            score: Score of each of its choices.
        """
        corners = row_hull(cost, score)
        self._start = self._start + corners[:, 0]
        new = np.diff(corners, axis=1)
        at = np.searchsorted(self._segments[1] / self._segments[0], new[1] / new[0], side="right")
        self._segments = np.insert(self._segments, at, new, axis=1)

    def corners(self) -> tuple[Floats, Floats]:
        """Give the hull of all rows so far.

        Returns:
            Costs, rising, and the bound at each; linear in between, constant after the last.
        """
        cost, score = self._start[:, None] + np.concatenate(
            [np.zeros((2, 1)), np.cumsum(self._segments, axis=1)], axis=1
        )
        return cost, score


def row_hull(cost: Floats, score: Floats) -> Floats:
    """Walk the decreasing lower convex hull of one row's choices.

    Args:
        cost: Cost of each choice.
        score: Score of each choice.

    Returns:
        2 x corners: costs, rising, and scores, falling.
    """
    hull: list[tuple[float, float]] = []
    for c, s in sorted(zip(cost.tolist(), score.tolist(), strict=True)):
        if hull and (s >= hull[-1][1] or c == hull[-1][0]):
            continue
        while len(hull) > 1:
            (c1, s1), (c0, s0) = hull[-1], hull[-2]
            if (s - s0) * (c1 - c0) > (s1 - s0) * (c - c0):
                break
            hull.pop()
        hull.append((c, s))
    return np.array(hull).T
