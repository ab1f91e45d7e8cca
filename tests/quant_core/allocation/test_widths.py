"""Bits of weights and activations chosen together, against every plan of small problems."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from quant_core.allocation.candidates import Candidates
from quant_core.allocation.plan_bits import file_front, plan_bits
from quant_core.allocation.plan_problem import PlanProblem
from quant_core.allocation.reasons import explain_bits
from quant_core.allocation.replan import narrow
from quant_core.errors import SpecError
from quant_core.spec import (
    CostTable,
    LayerCosts,
    LayerRule,
    LayerSensitivity,
    QuantizeSpec,
    SensitivityTable,
)
from quant_core.spec.width import activation_of, format_width, weight_of, width_of
from quant_core.trials.refine import neighbours
from quant_core.trials.uniform import largest_uniform

WEIGHTS, ACTIVATIONS = (2, 4, 8), (4, 8, 16, 32)
WIDTHS = (*(width_of(w, a) for a in ACTIVATIONS for w in WEIGHTS), 32)


def tables(seed=0, layers=3):
    rng = np.random.default_rng(seed)
    names, sizes = [f"l{i}" for i in range(layers)], rng.integers(10, 80, layers).tolist()
    weights, inputs = (-np.sort(-rng.exponential(1, (layers, 3)), axis=1) for _ in range(2))
    table = SensitivityTable(
        method="output", trace_method=None, loss="kl", samples=8, probes=0, seed=0,
        layers=tuple(
            LayerSensitivity(
                name=name, weight=name, parameters=size,
                sensitivity=dict(zip(WEIGHTS, map(float, w), strict=True)) | {32: 0.0},
                activation_sensitivity=dict(zip(ACTIVATIONS, map(float, a), strict=False)) | {32: 0.0},
            )
            for name, size, w, a in zip(names, sizes, weights, inputs, strict=True)
        ),
    )  # fmt: skip
    costs = CostTable(
        model="net.onnx", float_bytes=10_000, base=50, functions={2: 7},
        layers=tuple(
            LayerCosts(
                name=name, weight=name, op="Conv", parameters=size, macs=3 * size, bits=WIDTHS,
                bytes={w: size * weight_of(w) + (activation_of(w) == 16) for w in WIDTHS},
                activation_bits={w: activation_of(w) or 32 for w in WIDTHS},
            )
            for name, size in zip(names, sizes, strict=True)
        ),
    )  # fmt: skip
    return table, costs


def everything(table, costs):
    rows = list(zip(table.layers, costs.layers, strict=True))
    for choice in itertools.product(WIDTHS, repeat=len(rows)):
        loss = bops = 0.0
        size = 50 + 7 * (2 in {w % 100 for w in choice})
        for width, (row, cost) in zip(choice, rows, strict=True):
            weight, activation = (32, 32) if width == 32 else (width % 100, width // 100)
            loss += row.sensitivity[weight] + row.activation_sensitivity[activation]
            bops += 3 * row.parameters * weight * activation
            size += cost.bytes[width]
        yield loss, bops, size, choice


@pytest.mark.parametrize("seed", range(4))
def test_the_plan_is_the_best_within_bit_operations_and_bytes(seed):
    table, costs = tables(seed)
    problem, plans = PlanProblem.of(table, costs), list(everything(table, costs))
    for share in (0.02, 0.05, 0.1, 0.3, 1.0):
        limit = share * costs.float_bops
        for size in (900, 10_000):
            fitting = [plan for plan in plans if plan[1] <= limit and plan[2] <= size]
            plan = plan_bits(problem, {"bops": limit, "bytes": size})
            best = min(fitting)
            assert plan.predicted_loss == pytest.approx(best[0], abs=1e-9)
            assert plan.costs["bops"] <= limit
            assert problem.loss(plan.widths) == pytest.approx(plan.predicted_loss)
            assert plan.bits == {name: weight_of(width) for name, width in plan.widths.items()}


def test_the_front_and_rules_know_both():
    table, costs = tables()
    problem = PlanProblem.of(table, costs)
    for point in file_front(problem).points:
        assert len(point.activation_bits) == (0 if set(point.bits) == {32} else 3)
        assert set(point.bits) <= {2, 4, 8, 32}
    pinned = narrow(costs, (LayerRule(match="l0", pin=4),)).layers[0]
    assert pinned.bits == tuple(width_of(4, a) for a in ACTIVATIONS)
    with pytest.raises(SpecError, match="scored at: 2, 4, 8, float"):
        narrow(costs, (LayerRule(match="l0", pin=5),))


def test_reasons_name_what_more_of_either_would_buy():
    table, costs = tables()
    problem = PlanProblem.of(table, costs)
    told = explain_bits("l0", width_of(4, 4), problem)
    weights, inputs = (table.layers[0].sensitivity, table.layers[0].activation_sensitivity)
    assert f"8 bits would cost {4 * table.layers[0].parameters} bytes more" in told
    assert f"lower the predicted loss by {weights[4] - weights[8]:.3g}" in told
    assert "4-bit activations are simulated, the file holds 8" in told
    more = 3 * table.layers[0].parameters * 4 * (8 - 4)
    assert f"8-bit activations would cost {more:.3g} bit operations more" in told
    assert told.endswith(f"lower the predicted loss by {inputs[4] - inputs[8]:.3g}")
    free = plan_bits(problem, {"bytes": 10_000})
    assert {layer.bits for layer in free.layers} == {32}


def test_more_bits_can_take_fewer_bytes():
    """3 bits lie in two planes, with nodes to put them together: in small layers that is more than 4 bits take."""
    problem = PlanProblem.of(*tables(layers=1))
    files = replace(problem.files, layers={"l0": {4: 300, 8: 275}})
    scores = {"l0": {4: 0.5, 8: 0.25}}
    problem = replace(problem, files=files, scores=scores, candidates={"l0": Candidates((4, 8), None)})
    told = explain_bits("l0", 4, problem)
    assert told == "budget: 8 bits would take 25 bytes less and lower the predicted loss by 0.25"


def test_neighbours_move_one_or_the_other():
    problem = PlanProblem.of(*tables(layers=1))
    moves = neighbours(problem, {"l0": width_of(4, 8)})
    assert [move["l0"] for move in moves] == [
        width_of(2, 8), width_of(8, 8), width_of(4, 4), width_of(4, 16)
    ]  # fmt: skip
    assert {move["l0"] for move in neighbours(problem, {"l0": 32})} == {width_of(8, 32)}
    assert 32 in {move["l0"] for move in neighbours(problem, {"l0": width_of(8, 8)})}


def test_there_is_a_largest_uniform_plan_for_each_activation():
    table, costs = tables()
    problem = PlanProblem.of(table, costs)
    found = dict(largest_uniform(problem, {"bops": 64 / 1024 * costs.float_bops}))
    assert set(found) == {width_of(8, 4), width_of(8, 8), width_of(4, 16), width_of(2, 32)}
    assert set(found[width_of(4, 16)].values()) == {width_of(4, 16)}


def test_widths_are_read_and_told():
    for weight, activation in itertools.product(WEIGHTS, (None, *ACTIVATIONS)):
        width = width_of(weight, activation)
        assert (weight_of(width), activation_of(width)) == (weight, activation)
    assert format_width(1604) == "4 bits on 16-bit activations"
    assert (format_width(3208), format_width(32)) == ("8 bits on float activations", "float")


@pytest.mark.parametrize(
    ("asked", "read"),
    [
        (8, 8), ("8", 8), ([8], 8), ("float", 32), ([16], 16), ("8,16,float", (8, 16, 32)), (4, (4,)),
        (["float", 8, 8], (8, 32)),
    ],
)  # fmt: skip
def test_one_number_is_for_all_and_several_are_chosen_from(asked, read):
    spec = QuantizeSpec.model_validate({"activation_bits": asked})
    assert spec.activation_bits == read
    assert spec.open_activations == (read if isinstance(read, tuple) else ())
    assert QuantizeSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"activation_bits": 5}, "5 is nothing that activations can be given; choose from 4, 8, 16, float"),
        ({"activation_bits": []}, "activation_bits is empty"),
        ({"activation_bits": "lots"}, "lots"),
        ({"activation_bits": True}, "true is nothing that activations"),
        ({"activation_bits": [8, 16], "allocation": "hawq_v2"}, "orders the bits of weights alone"),
        ({"activation_bits": [8, "float"], "target": "tensorrt"}, "for ort-cpu alone"),
    ],
)
def test_what_activations_cannot_be_is_refused(request_, told):
    with pytest.raises(ValueError, match=told):
        QuantizeSpec.model_validate(request_)
