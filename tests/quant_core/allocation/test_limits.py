"""Budgets that no choice of bits can meet, refused by the cost table alone."""

from __future__ import annotations

import pytest

from quant_core.allocation.limits import check_reach, read_limits
from quant_core.allocation.solver.infeasible import rounded_up
from quant_core.errors import InfeasibleBudgetError
from quant_core.spec import Budget, CostTable
from quant_core.spec.costs import LayerCosts, MemoryStep


def table(reason: str | None = None) -> CostTable:
    """A thousand weights at 2 or 4 bits and two thousand at 4 or 8: at least 10/3 bits in the mean."""
    layers = [
        LayerCosts(
            name=name,
            weight=name,
            op="Gemm",
            parameters=parameters,
            macs=parameters,
            bits=bits,
            reason=reason,
            bytes={width: parameters * width // 8 for width in bits},
            activation_bits=dict.fromkeys(bits, 8),
        )
        for name, parameters, bits in (("a", 1000, (2, 4)), ("b", 2000, (4, 8)))
    ]
    return CostTable(
        model="m", float_bytes=12000, base=0, functions={}, ties=(), groups=(), layers=tuple(layers)
    )


@pytest.mark.parametrize(
    ("budget", "least"),
    [({"effective_bits": 3.3}, "3.3334"), ({"bops": 79999.0}, "80000")],
)
def test_what_cannot_be_reached_is_refused_with_what_can(budget: dict[str, float], least: str) -> None:
    with pytest.raises(InfeasibleBudgetError, match="smallest reachable value") as told:
        check_reach(Budget(**budget), table())
    assert told.value.where == next(iter(budget))
    assert f"at least {least}," in (told.value.remedy or "")
    check_reach(Budget(**{name: float(least) for name in budget}), table())


def test_times_that_cannot_be_reached_are_told_with_their_unit() -> None:
    costs = table()
    timed = [layer.model_copy(update={"latency": dict.fromkeys(layer.bits, 0.25)}) for layer in costs.layers]
    with pytest.raises(InfeasibleBudgetError) as told:
        check_reach(Budget(latency=0.3), costs.model_copy(update={"layers": tuple(timed)}))
    assert "the budget is 0.3 ms, but the smallest reachable value is 0.5 ms." in str(told.value)


def test_a_peak_that_no_bits_keep_is_refused_before_anything_is_scored() -> None:
    """At one step 100 elements of `a` and 50 of `b` are held in 8 bits, and 30 bytes besides."""
    step = MemoryStep(node="add", fixed=30, elements={"a": 100, "b": 50})
    costs = table().model_copy(update={"memory": (step,)})
    with pytest.raises(InfeasibleBudgetError, match="smallest reachable is 180") as told:
        check_reach(Budget(peak_memory=179.0), costs)
    assert told.value.where == "peak_memory"
    check_reach(Budget(peak_memory=180.0), costs)
    assert read_limits(Budget(peak_memory=0.5), costs) == {"peak_memory": 0.5 * (30 + 150 * 4)}
    assert read_limits(Budget(peak_memory=1.0), costs) == {"peak_memory": 30 + 150 * 4}


def test_rules_that_stand_in_the_way_are_named() -> None:
    with pytest.raises(InfeasibleBudgetError, match="with pinned to 4 by rule 'b'") as told:
        check_reach(Budget(effective_bits=3), table("pinned to 4 by rule 'b'"))
    assert "lift some of these rules" in (told.value.remedy or "")


@pytest.mark.parametrize(
    ("value", "text"),
    [(9.68121494048, "9.6813"), (1234.0, "1234"), (123456.7, "123460"), (0.00123451, "0.0012346")],
)
def test_remedies_are_rounded_up(value: float, text: str) -> None:
    assert rounded_up(value) == text
    assert float(text) >= value
