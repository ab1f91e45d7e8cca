"""How each point of a front came about, so that its choices can be found without having been stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quant_core.allocation.solver.hull import Hull, Rows


@dataclass(frozen=True, eq=False)
class Trail:
    """Back-pointers of merged points, and corners of the hull.

    Attributes:
        origin: Per point: 0 or more for its position after the last merge, or -1 - its corner of the hull.
        order: The rows in the order they were merged.
        steps: Per merge: the parent's position before its merge, and the choice taken, for every position after it.
        hull: The hull.
    """

    origin: npt.NDArray[np.int64]
    order: npt.NDArray[np.intp]
    steps: tuple[tuple[npt.NDArray[np.int32], npt.NDArray[np.int16]], ...]
    hull: Hull

    def rows(self, points: npt.NDArray[np.int64]) -> Rows:
        """Trace points back.

        Args:
            points: Which points, rising.

        Returns:
            Points x rows: choice indices.
        """
        origin = self.origin[points]
        merged = origin >= 0
        at = origin[merged]
        found = np.empty((int(merged.sum()), len(self.steps)), dtype=np.int16)
        for row in range(len(self.steps) - 1, -1, -1):
            parent, taken = self.steps[row]
            found[:, row] = taken[at]
            at = parent[at].astype(np.int64)
        rows = np.empty((len(points), len(self.steps)), dtype=np.int16)
        rows[np.ix_(merged, self.order)] = found
        if not merged.all():
            rows[np.ix_(~merged, self.order)] = self.hull.plans(-1 - origin[~merged])
        return rows
