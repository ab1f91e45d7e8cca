import itertools
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from quant_core.allocation.candidates import Candidates, candidate_bits, with_activation_bits
from quant_core.allocation.file_costs import FileCosts, smallest_reachable
from quant_core.allocation.plan_bits import file_front, plan_bits
from quant_core.allocation.plan_problem import PlanProblem
from quant_core.errors import InfeasibleBudgetError, NonFiniteError, SpecError
from quant_core.ingest import Layer, Use
from quant_core.spec import LayerRule, LayerSensitivity, PlanSpec, QuantizeSpec, SensitivityTable

BITS = (2, 3, 4, 8)
OVERHEAD = {3: 40}


def make(seed, layers=5):
    rng = np.random.default_rng(seed)
    names = [f"l{i}" for i in range(layers)]
    sizes = rng.integers(10, 80, layers)
    rows = tuple(
        LayerSensitivity(
            name=name,
            weight=name,
            parameters=int(size),
            sensitivity={
                b: float(v) for b, v in zip(BITS, sorted(rng.exponential(1, 4), reverse=True), strict=True)
            },
        )
        for name, size in zip(names, sizes, strict=True)
    )
    table = SensitivityTable(
        method="output", trace_method="gauss_newton", loss="kl", samples=1, probes=1, seed=0, layers=rows
    )
    layers_bytes = {name: {b: int(size * b) for b in BITS} for name, size in zip(names, sizes, strict=True)}
    costs = FileCosts(100, layers_bytes, OVERHEAD)
    return table, {name: Candidates(BITS, None) for name in names}, costs


def problem(table, candidates, costs, **more):
    return PlanProblem(candidates, {row.name: row.sensitivity for row in table.layers}, costs, **more)


def brute_force(table, candidates, costs):
    for choice in itertools.product(BITS, repeat=len(candidates)):
        bits = dict(zip(candidates, choice, strict=True))
        loss = sum(row.sensitivity[bits[row.name]] for row in table.layers)
        yield costs.total(bits), loss, bits


@pytest.mark.parametrize("seed", range(12))
def test_plan_is_the_best_of_all_with_functions_counted(seed):
    table, candidates, costs = make(seed)
    everything = list(brute_force(table, candidates, costs))
    smallest, largest = min(e[0] for e in everything), max(e[0] for e in everything)
    assert smallest_reachable(candidates, costs) == smallest
    for share in (0.0, 0.1, 0.4, 0.8, 1.0):
        budget = int(smallest + share * (largest - smallest))
        plan = plan_bits(problem(table, candidates, costs), {"bytes": budget})
        best = min(loss for size, loss, _ in everything if size <= budget)
        assert plan.predicted_loss == pytest.approx(best, abs=1e-9)
        assert plan.predicted_bytes == costs.total(plan.bits) <= budget
        assert plan.optimal
        assert all("budget" in layer.reason for layer in plan.layers)


def test_front_holds_true_plans_and_no_dominated_one():
    table, candidates, costs = make(3)
    front = file_front(problem(table, candidates, costs))
    every = {
        (tuple(bits.values())): (size, loss) for size, loss, bits in brute_force(table, candidates, costs)
    }
    for point in front.points:
        size, loss = every[point.bits]
        assert point.bytes == size
        assert point.predicted_loss == pytest.approx(loss)
    pairs = [(point.bytes, point.predicted_loss) for point in front.points]
    assert all(a[0] < b[0] and a[1] > b[1] for a, b in itertools.pairwise(pairs))


def test_front_misses_no_plan_and_counts_functions_where_two_sizes_meet():
    table, candidates, costs = make(3, layers=4)
    plain = FileCosts(100, costs.layers, {})
    every = sorted((size, loss) for size, loss, _ in brute_force(table, candidates, plain))
    least = np.minimum.accumulate([loss for _, loss in every])
    true = [pair for i, pair in enumerate(every) if i == 0 or pair[1] < least[i - 1]]
    front = file_front(problem(table, candidates, plain))
    assert [(point.bytes, pytest.approx(point.predicted_loss)) for point in front.points] == true
    # What unpacks 3 bits takes more than any weight, so only plans without them stay beside 8 bits throughout.
    dear = FileCosts(100, costs.layers, {3: 10**4})
    left = file_front(problem(table, candidates, dear)).points
    assert 1 < len(left) < len(true)
    assert [point.bits for point in front.points if 3 not in point.bits] == [point.bits for point in left]


def test_infeasible_budget_tells_the_smallest_size_and_the_rules():
    table, candidates, costs = make(1)
    candidates = candidates | {"l0": Candidates((8,), "pinned to 8 by rule 'l0'")}
    smallest = smallest_reachable(candidates, costs)
    with pytest.raises(InfeasibleBudgetError, match=f"{smallest} bytes with pinned to 8"):
        plan_bits(problem(table, candidates, costs), {"bytes": smallest - 1})
    assert plan_bits(problem(table, candidates, costs), {"bytes": smallest}).predicted_bytes == smallest


@pytest.mark.parametrize("first", ["bytes", "bops"])
@pytest.mark.parametrize("more", [0, 3, 1000])
def test_a_limit_that_cannot_be_met_is_named_though_bytes_have_one_too(first, more):
    """Of the sets of widths, the first has too few bytes for the function of 3 bits."""
    table, candidates, costs = make(1)
    by_layer = {name: {b: float(b) for b in BITS} for name in candidates}
    posed = replace(problem(table, candidates, costs), costs={"bops": by_layer})
    limits = {"bytes": smallest_reachable(candidates, costs) + more, "bops": 10.0}
    assert plan_bits(posed, limits).costs["bops"] == 10
    limits["bops"] = 9.0
    with pytest.raises(InfeasibleBudgetError, match=r"smallest reachable value.* is 10\.") as refused:
        plan_bits(posed, {first: limits[first], **limits})
    assert refused.value.where == "bops"


def test_a_budget_that_tied_layers_exceed_is_refused_with_the_size_of_the_file():
    table, candidates, costs = make(3)
    candidates |= {"l0": Candidates((2, 8), None), "l1": Candidates((4, 8), None)}
    tied = replace(problem(table, candidates, costs), ties=(("l0", "l1"),))
    smallest = min(
        size for size, _, bits in brute_force(table, candidates, costs) if bits["l0"] == bits["l1"] == 8
    )
    assert plan_bits(tied, {"bytes": smallest}).predicted_bytes == smallest
    with pytest.raises(InfeasibleBudgetError, match=f"smallest reachable file is {smallest} bytes"):
        plan_bits(tied, {"bytes": smallest - 1})


def test_scores_that_are_no_numbers_rule_a_width_out_or_name_the_layer():
    table, candidates, costs = make(2)
    first = table.layers[0].model_copy(update={"sensitivity": {2: float("nan"), 3: 0.5, 4: 0.2, 8: 0.1}})
    table = table.model_copy(update={"layers": (first, *table.layers[1:])})
    plan = plan_bits(problem(table, candidates, costs), {"bytes": 10**6})
    assert plan.bits["l0"] == 8
    assert "non-finite at 2" in plan.layers[0].reason
    broken = first.model_copy(update={"sensitivity": {}})
    with pytest.raises(NonFiniteError, match="l0"):
        plan_bits(
            problem(table.model_copy(update={"layers": (broken, *table.layers[1:])}), candidates, costs), {}
        )


def layer(name, op="Conv"):
    return Layer(name, op, f"{name}.weight", (4, 4), 0, (Use(name, op, "x", "y", 1),))


def test_rules_narrow_the_candidates():
    layers = [layer("stem"), layer("body.1"), layer("body.2"), layer("head", "Gemm")]
    spec = QuantizeSpec.model_validate(
        {
            "bits": "2,4,8",
            "pin": {"head.weight": 6},
            "exclude": "stem",
            "rules": [{"match": "body*", "min_bits": 4}, {"match": "Gemm", "max_bits": 6}],
        }
    )
    found = candidate_bits(layers, spec)
    assert {name: c.bits for name, c in found.items()} == {
        "stem": (32,),
        "body.1": (4, 8),
        "body.2": (4, 8),
        "head": (6,),
    }
    assert found["body.1"].reason == "limited to at least 4 by rule 'body*'"


def test_activation_rules_are_noted_on_layers_and_narrow_nothing():
    layers = [layer("stem"), layer("body"), layer("head")]
    rules = [
        {"match": "stem", "activation_bits": "float"},
        {"match": "head", "pin": 4, "activation_bits": "float"},
    ]
    spec = QuantizeSpec.model_validate({"bits": "2,8", "rules": rules, "float_activations": "st*"})
    assert [one.activation_bits for one in with_activation_bits(layers, spec)] == [32, None, 32]
    found = candidate_bits(layers, spec)
    assert {name: c.bits for name, c in found.items()} == {"stem": (2, 8), "body": (2, 8), "head": (4,)}
    assert (found["stem"].reason, found["head"].reason) == (
        None,
        "pinned to 4 with float activations by rule 'head'",
    )
    both = QuantizeSpec.model_validate({"rules": [rules[0], {"match": "s*", "activation_bits": 8}]})
    with pytest.raises(
        SpecError, match="stem cannot have both: float activations by rule 'stem'; 8 activations by"
    ):
        with_activation_bits(layers, both)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "exactly one of pin"),
        ({"activation_bits": 4}, "8, 16, float"),
        ({"activation_bits": 8, "exclude": True}, "leave activation_bits out"),
        ({"activation_bits": "float", "pin": 4, "max_bits": 8}, "exactly one of pin"),
    ],
)
def test_activation_rules_that_mean_nothing_are_refused(rule, message):
    with pytest.raises(ValidationError, match=message):
        LayerRule.model_validate({"match": "stem"} | rule)
    with pytest.raises(ValidationError, match="'stem' changes how a layer runs"):
        PlanSpec.model_validate({"size": 0.2, "float_activations": ["stem"]})


def test_rules_that_match_nothing_or_contradict_are_named():
    with pytest.raises(SpecError, match="'tail' matches no layer"):
        candidate_bits([layer("stem")], QuantizeSpec.model_validate({"pin": {"tail": 4}}))
    both = QuantizeSpec.model_validate({"pin": {"stem": 4}, "exclude": ["st*"]})
    with pytest.raises(SpecError, match=r"stem.*pinned to 4.*excluded|stem.*excluded.*pinned to 4"):
        candidate_bits([layer("stem")], both)
