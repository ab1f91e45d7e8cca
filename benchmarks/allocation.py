"""Time the allocation against layers x choices: `python -m benchmarks.allocation`.

The networks are made up: sizes and traces are log-normal, scores fall fourfold a bit with 30 % noise, costs are
bytes. The front is built for every budget at once; the integer programs solve one budget, 12.5 % of the float
weights (4 bits a weight). Swap search starts from the optimum of the sum and gets interactions that are inner products
of made-up output changes; its gain is what it lowers that plan's quadratic objective by. Seconds are CPU time of one
thread, that of child processes included (CBC runs as one, and is given its problem as a file).
"""

from __future__ import annotations

import resource
from dataclasses import replace

import numpy as np

from quant_core.allocation import Problem, pareto_front, solve

BITS = np.array([2, 3, 4, 5, 6, 7, 8, 32])
SHAPES = ((22, 7), (54, 7), (54, 8), (200, 8), (500, 8), (2000, 8))
SHARE = 0.125
PAIRED = ((22, 7), (54, 7), (150, 6))


def network(layers: int, choices: int, parameters: float) -> Problem:
    """Make up a network.

    Args:
        layers: Number of layers.
        choices: Number of bit-widths; the last is float.
        parameters: Parameters of the whole network.

    Returns:
        The problem without a budget.
    """
    rng = np.random.default_rng(0)
    bits = np.append(BITS[: choices - 1], BITS[-1])
    sizes = rng.lognormal(0, 1.5, layers)
    sizes = np.maximum(16, np.round(sizes / sizes.sum() * parameters / 16) * 16)
    noise = rng.uniform(0.7, 1.4, (layers, choices))
    scores = rng.lognormal(-3, 1.5, layers)[:, None] * 4.0**-bits * noise
    scores[:, -1] = 0
    return Problem(scores, {"bytes": sizes[:, None] * bits / 8})


def paired_network(layers: int, choices: int) -> Problem:
    """Make up a network whose layers disturb its output in directions that are partly alike.

    Args:
        layers: Number of layers.
        choices: Number of bit-widths.

    Returns:
        The problem without a budget.
    """
    rng = np.random.default_rng(0)
    bits = np.append(BITS[: choices - 1], BITS[-1])
    sizes = np.ceil(rng.lognormal(8, 1, layers))
    common = rng.normal(size=32)
    direction = rng.normal(size=(layers, 32)) + common * rng.choice([-1, 1], layers)[:, None]
    strength = rng.lognormal(-1, 1, layers)[:, None] * np.where(bits < BITS[-1], 2.0**-bits, 0.0)
    change = strength[:, :, None] * (direction[:, None] + 0.5 * rng.normal(size=(layers, choices, 32)))
    return Problem(
        0.5 * np.square(change).sum(axis=2),
        {"bytes": sizes[:, None] * bits / 8},
        interactions=np.einsum("ikd,jld->ikjl", change, change),
    )


def main() -> None:
    """Print one row a shape."""
    solve(network(4, 4, 1e5))  # solvers are loaded before the first is timed
    sums()
    swaps()


def swaps() -> None:
    """Print what swap search takes and gains."""
    print("\nlayers choices | swap search s | objective of the sum's optimum -> after swaps | proved gap")
    for layers, choices in PAIRED:
        problem = paired_network(layers, choices)
        cost = np.asarray(problem.costs["bytes"])
        problem = replace(problem, budgets={"bytes": float(cost[:, 2].sum())})
        start = _cpu_time()
        plan = solve(problem)
        seconds = _cpu_time() - start
        alone = np.array(solve(replace(problem, interactions=None)).choice)
        index, pairs = np.arange(layers), np.asarray(problem.interactions)
        chosen = pairs[index[:, None], alone[:, None], index, alone]
        before = np.asarray(problem.sensitivity)[index, alone].sum() + np.triu(chosen, 1).sum()
        print(
            f"{layers:6} {choices:7} | {seconds:13.3f} | {before:.4g} -> {plan.objective:.4g} | {plan.gap:.3g}",
            flush=True,
        )


def sums() -> None:
    """Print what fronts and integer programs take."""
    print("layers choices |  front s  points exact  gap at 4 bits |  HiGHS s  optimal |  CBC s  optimal")
    for layers, choices in SHAPES:
        parameters = 4e5 * layers
        problem = network(layers, choices, parameters)
        budget = SHARE * 4 * parameters
        start = _cpu_time()
        front = pareto_front(problem)
        seconds = [_cpu_time() - start]
        plans = [front.plan(budget)]
        for solver in ("highs", "cbc"):
            start = _cpu_time()
            plans.append(solve(replace(problem, budgets={"bytes": budget}), solver=solver, time_limit=60))
            seconds.append(_cpu_time() - start)
        worst = plans[0].objective / plans[1].objective - 1
        print(
            f"{layers:6} {choices:7} | {seconds[0]:8.3f} {len(front):7} {front.exact!s:5} "
            f"<= {plans[0].gap:.1e} (is {worst:.0e}) | {seconds[1]:8.3f}  {plans[1].optimal!s:7} | "
            f"{seconds[2]:6.3f}  {plans[2].optimal}",
            flush=True,
        )


def _cpu_time() -> float:
    """Seconds of this process and its ended children."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


if __name__ == "__main__":
    main()
