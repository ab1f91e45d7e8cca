"""Peak activation memory as a budget, against every plan of small problems."""

import itertools

import numpy as np
import pytest

from quant_core.allocation.plan_bits import plan_bits
from quant_core.allocation.plan_problem import PEAK_MEMORY, PlanProblem
from quant_core.allocation.replan import narrow
from quant_core.errors import InfeasibleBudgetError, SpecError
from quant_core.spec import (
    CostTable,
    LayerCosts,
    LayerRule,
    LayerSensitivity,
    PlanSpec,
    SensitivityTable,
)
from quant_core.spec.costs import MemoryStep

BITS = (2, 4, 8, 32)


def tables(seed, layers=5, steps=7):
    rng = np.random.default_rng(seed)
    names = [f"l{i}" for i in range(layers)]
    sizes = rng.integers(10, 80, layers).tolist()
    losses = -np.sort(-rng.exponential(1, (layers, len(BITS))), axis=1)
    table = SensitivityTable(
        method="output", trace_method=None, loss="kl", samples=8, probes=0, seed=0,
        layers=tuple(
            LayerSensitivity(
                name=name, weight=name, parameters=size,
                sensitivity=dict(zip(BITS, map(float, row), strict=True)),
            )
            for name, size, row in zip(names, sizes, losses, strict=True)
        ),
    )  # fmt: skip
    costs = CostTable(
        model="net.onnx", float_bytes=10_000, base=50, functions={},
        layers=tuple(
            LayerCosts(
                name=name, weight=name, op="Conv", parameters=size, macs=size, bits=BITS,
                bytes={b: size * b // 8 for b in BITS},
                activation_bits={b: 32 if b == 32 else 8 for b in BITS},
            )
            for name, size in zip(names, sizes, strict=True)
        ),
        memory=tuple(
            MemoryStep(
                node=f"n{k}", fixed=int(rng.integers(0, 20)),
                elements={n: int(rng.integers(1, 50)) for n in rng.choice(names, 3, replace=False).tolist()},
            )
            for k in range(steps)
        ),
    )  # fmt: skip
    return table, costs


def everything(table, costs):
    losses = {row.name: row.sensitivity for row in table.layers}
    for choice in itertools.product(BITS, repeat=len(costs.layers)):
        bits = dict(zip(losses, choice, strict=True))
        peak = max(
            step.fixed + sum(n * (4 if bits[name] == 32 else 1) for name, n in step.elements.items())
            for step in costs.memory
        )
        size = costs.base + sum(layer.bytes[bits[layer.name]] for layer in costs.layers)
        yield sum(losses[name][b] for name, b in bits.items()), peak, size


@pytest.mark.parametrize("seed", range(10))
def test_the_plan_is_the_best_within_the_peak_and_the_size(seed):
    table, costs = tables(seed)
    problem, plans = PlanProblem.of(table, costs), list(everything(table, costs))
    low, high = (pick(peak for _, peak, _ in plans) for pick in (min, max))
    assert high == costs.float_peak_memory
    for share in (0.0, 0.2, 0.5, 0.9):
        limit = low + share * (high - low)
        assert plan_bits(problem, {PEAK_MEMORY: limit}).predicted_loss == pytest.approx(
            min(loss for loss, peak, _ in plans if peak <= limit), abs=1e-9
        )
        plan = plan_bits(problem, {"bytes": 250, PEAK_MEMORY: limit})
        best = min(loss for loss, peak, size in plans if peak <= limit and size <= 250)
        assert plan.predicted_loss == pytest.approx(best, abs=1e-9)
        assert plan.costs[PEAK_MEMORY] <= limit == plan.limits[PEAK_MEMORY]


@pytest.mark.parametrize("seed", range(10))
def test_a_peak_out_of_reach_says_the_smallest(seed):
    table, costs = tables(seed)
    problem, plans = PlanProblem.of(table, costs), list(everything(table, costs))
    smallest = min(peak for _, peak, _ in plans)
    with pytest.raises(InfeasibleBudgetError, match=f"smallest reachable is {smallest}") as told:
        plan_bits(problem, {PEAK_MEMORY: smallest - 1})
    assert told.value.where == PEAK_MEMORY
    plan_bits(problem, {PEAK_MEMORY: smallest})
    pinned = PlanProblem.of(table, narrow(costs, (LayerRule(match="l0", pin=32),)))
    beside = min(
        plan[1]
        for plan, choice in zip(plans, itertools.product(BITS, repeat=5), strict=True)
        if choice[0] == 32
    )
    if beside > smallest:
        with pytest.raises(InfeasibleBudgetError, match=f"{beside} with pinned to float by rule 'l0'"):
            plan_bits(pinned, {PEAK_MEMORY: beside - 1})


def test_a_peak_beside_another_budget_says_the_smallest_of_both():
    # Fewer activation bits come with fewer weight bits here, so that a floor under the second cost holds up the first.
    table, costs = tables(3)
    layers = tuple(
        layer.model_copy(update={"latency": {2: 9.0, 4: 9.0, 8: 9.0, 32: 1.0}}) for layer in costs.layers
    )
    costs = costs.model_copy(update={"layers": layers})
    problem = PlanProblem.of(table, costs)
    slow = [sum(1.0 if b == 32 else 9.0 for b in choice) for choice in itertools.product(BITS, repeat=5)]
    plans = [peak for (_, peak, _), ms in zip(everything(table, costs), slow, strict=True) if ms <= 21]
    with pytest.raises(
        InfeasibleBudgetError, match=f"reachable is {min(plans)} within the budget for latency"
    ):
        plan_bits(problem, {"latency": 21, PEAK_MEMORY: min(plans) - 1})
    assert plan_bits(problem, {"latency": 21, PEAK_MEMORY: min(plans)}).costs[PEAK_MEMORY] <= min(plans)


def test_where_a_peak_cannot_be_kept_it_is_refused():
    table, costs = tables(0)
    with pytest.raises(SpecError, match="a limit on peak_memory needs"):
        plan_bits(PlanProblem.of(table, costs.model_copy(update={"memory": ()})), {PEAK_MEMORY: 100})
    traced = table.model_copy(
        update={"layers": tuple(row.model_copy(update={"trace": 1.0}) for row in table.layers)}
    )
    with pytest.raises(SpecError, match="a peak is a limit on every step"):
        plan_bits(PlanProblem.of(traced, costs, allocation="hawq_v2"), {PEAK_MEMORY: 200})
    assert PlanSpec.model_validate({"peak_memory": "2kB"}).budget.peak_memory == 2000
    with pytest.raises(ValueError, match="cannot read 'lots'"):
        PlanSpec.model_validate({"peak_memory": "lots"})
