"""Problems that a solver got wrong."""

from __future__ import annotations

import numpy as np
import pytest

from quant_core.allocation import Problem, solve
from quant_core.allocation.solver.integer_program import Solver

SCORES = [
    [-0.8019, -1.3244, -0.2484, 0.4204],
    [np.nan, 0.1097, -0.5526, -0.7848],
    [np.nan, 1.6348, 0.2728, np.nan],
    [-0.9583, np.nan, 0.2029, -1.7321],
    [-0.0837, -1.1632, -0.6293, -0.488],
]
BYTES = [
    [246, 956, 935, 565],
    [899, 576, 598, 894],
    [351, 297, 603, 10],
    [347, 219, 15, 457],
    [550, 151, 569, 280],
]
MILLISECONDS = [
    [0.4638671875, 2.16015625, 1.33203125, 1.103515625],
    [2.767578125, 1.0, 2.494140625, 0.68359375],
    [1.826171875, 1.556640625, 0.4931640625, 2.916015625],
    [2.8330078125, 0.4951171875, 1.0419921875, 2.470703125],
    [0.2783203125, 2.26953125, 0.8642578125, 1.7607421875],
]


@pytest.mark.parametrize("solver", ["highs", "cbc"])
def test_a_plan_that_presolve_of_highs_overlooks(solver: Solver) -> None:
    problem = Problem(
        np.array(SCORES),
        {"bytes": np.array(BYTES), "ms": np.array(MILLISECONDS)},
        {"bytes": 1891.40625, "ms": 6.03452},
        allowed=np.isfinite(SCORES),
    )
    assert solve(problem, solver=solver).choice == (0, 1, 2, 2, 1)
