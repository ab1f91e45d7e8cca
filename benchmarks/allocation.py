"""Time the allocation against layers x choices: `python -m benchmarks.allocation`.

The networks are made up: sizes and traces are log-normal, scores fall fourfold a bit with 30 % noise, costs are
bytes. The front is built for every budget at once; the integer programs solve one budget, 12.5 % of the float
weights (4 bits a weight).
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from quant_core.allocation import Problem, pareto_front, solve

BITS = np.array([2, 3, 4, 5, 6, 7, 8, 32])
SHAPES = ((22, 7), (54, 7), (54, 8), (200, 8), (500, 8), (2000, 8))
SHARE = 0.125


def network(layers: int, choices: int, parameters: float, seed: int = 0) -> Problem:
    """Make up a network.

    Args:
        layers: Number of layers.
        choices: Number of bit-widths; the last is float.
        parameters: Parameters of the whole network.
        seed: Seed.

    Returns:
        The problem without a budget.
    """
    rng = np.random.default_rng(seed)
    bits = np.append(BITS[: choices - 1], BITS[-1])
    sizes = rng.lognormal(0, 1.5, layers)
    sizes = np.maximum(16, np.round(sizes / sizes.sum() * parameters / 16) * 16)
    noise = rng.uniform(0.7, 1.4, (layers, choices))
    scores = rng.lognormal(-3, 1.5, layers)[:, None] * 4.0**-bits * noise
    scores[:, -1] = 0
    return Problem(scores, {"bytes": sizes[:, None] * bits / 8})


def main() -> None:
    """Print one row a shape."""
    print("layers choices |  front s  points exact  gap at 4 bits |  HiGHS s  optimal |  CBC s  optimal")
    for layers, choices in SHAPES:
        parameters = 4e5 * layers
        problem = network(layers, choices, parameters)
        budget = SHARE * 4 * parameters
        start = time.perf_counter()
        front = pareto_front(problem)
        seconds = [time.perf_counter() - start]
        plans = [front.plan(budget)]
        for solver in ("highs", "cbc"):
            start = time.perf_counter()
            plans.append(solve(replace(problem, budgets={"bytes": budget}), solver=solver, time_limit=60))
            seconds.append(time.perf_counter() - start)
        worst = plans[0].objective / plans[1].objective - 1
        print(
            f"{layers:6} {choices:7} | {seconds[0]:8.3f} {len(front):7} {front.exact!s:5} "
            f"<= {plans[0].gap:.1e} (is {worst:.0e}) | {seconds[1]:8.3f}  {plans[1].optimal!s:7} | "
            f"{seconds[2]:6.3f}  {plans[2].optimal}",
            flush=True,
        )


if __name__ == "__main__":
    main()
