"""A new plan from the tables of a job."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from quant_core.allocation.plan_bits import plan_bits
from quant_core.allocation.plan_problem import PairLosses, PlanProblem
from quant_core.allocation.replan import replan
from quant_core.errors import InfeasibleBudgetError, SpecError
from quant_core.sensitivity.estimators.interaction import Interactions
from quant_core.spec import CostTable, LayerCosts, LayerSensitivity, PlanSpec, SensitivityTable

BITS = (2, 4, 8)
SIZES = {"stem": 100, "body": 400, "head": 50}


def tables(method="output", **more):
    table = SensitivityTable(
        method=method, trace_method="gauss_newton", loss="kl", samples=8, probes=8, seed=0,
        layers=tuple(
            LayerSensitivity(
                name=name, weight=f"{name}.w", parameters=size, trace=float(i + 1) * size,
                sensitivity={b: (3 - i) * 4.0**-b for b in BITS}, perturbation=dict.fromkeys((*BITS, 32), 0.0),
            )
            for i, (name, size) in enumerate(SIZES.items())
        ),
        **more,
    )  # fmt: skip
    costs = CostTable(
        model="net.onnx", float_bytes=2500, base=300, functions={},
        layers=tuple(
            LayerCosts(
                name=name, weight=f"{name}.w", op="Conv", parameters=size, macs=10 * size, bits=BITS,
                bytes={b: size * b // 8 for b in BITS}, activation_bits=dict.fromkeys(BITS, 8),
            )
            for name, size in SIZES.items()
        ),
    )  # fmt: skip
    return table, costs


def test_layers_that_a_job_follows_count_by_what_that_leaves(folder):
    """`head` stands behind the others, so that nothing heals it."""
    table, costs = tables()
    found = []
    for followed in ((), tuple(SIZES)):
        noted = costs.model_copy(update={"followed": followed})
        (folder / "costs.json").write_text(noted.model_dump_json())
        limits = [replan(folder, PlanSpec.model_validate({"size": size})) for size in range(440, 900, 10)]
        problem = PlanProblem.of(table, noted)
        assert all(plan.predicted_loss == pytest.approx(problem.loss(plan.widths)) for plan in limits)
        found.append([plan.bits["head"] for plan in limits])
    plain, healed = map(np.array, found)
    assert (healed >= plain).all()
    assert (healed > plain).any()


@pytest.fixture
def folder(tmp_path):
    table, costs = tables()
    (tmp_path / "sensitivity.json").write_text(table.model_dump_json())
    (tmp_path / "costs.json").write_text(costs.model_dump_json())
    return tmp_path


def test_the_plan_is_that_of_the_tables(folder):
    plan = replan(folder, PlanSpec.model_validate({"size": 600}))
    assert plan == plan_bits(PlanProblem.of(*tables()), {"bytes": 600})
    losses = {row.name: row.sensitivity for row in tables()[0].layers}
    best = min(
        (sum(losses[name][b] for name, b in zip(SIZES, choice, strict=True)), choice)
        for choice in itertools.product(BITS, repeat=3)
        if 300 + sum(size * b // 8 for size, b in zip(SIZES.values(), choice, strict=True)) <= 600
    )
    assert tuple(plan.bits.values()) == best[1]
    assert replan(folder / "sensitivity.json", PlanSpec.model_validate({"size": 600})) == plan


def test_every_budget_holds(folder):
    spec = PlanSpec.model_validate({"effective_bits": 4, "bops": "200k"})
    plan = replan(folder, spec)
    weights = sum(SIZES.values())
    assert plan.costs["effective_bits"] == pytest.approx(
        sum(SIZES[n] * b for n, b in plan.bits.items()) / weights
    )
    assert plan.costs["effective_bits"] <= 4
    assert plan.costs["bops"] == sum(10 * SIZES[n] * b * 8 for n, b in plan.bits.items()) <= 200_000
    assert plan.budget_bytes is None
    share = replan(folder, PlanSpec.model_validate({"bops": 0.04}))
    assert share.limits["bops"] == pytest.approx(0.04 * 10 * weights * 32 * 32)


def test_rules_narrow_and_are_told(folder):
    plan = replan(
        folder,
        PlanSpec.model_validate(
            {"size": 900, "pin": {"stem": 2}, "rules": [{"match": "Conv", "max_bits": 4}]}
        ),
    )
    assert plan.bits == {"stem": 2, "body": 4, "head": 4}
    assert "pinned to 2" in plan.layers[0].reason
    with pytest.raises(
        SpecError, match="pinned to 5 by rule 'stem' leaves nothing of the bits it was scored at: 2, 4, 8"
    ):
        replan(folder, PlanSpec.model_validate({"pin": {"stem": 5}}))
    with pytest.raises(SpecError, match="tail"):
        replan(folder, PlanSpec.model_validate({"pin": {"tail": 4}}))


@pytest.mark.parametrize(
    ("budget", "least"),
    [({"effective_bits": 2.5}, "6.36363636364"), ({"bops": "10k"}, "280000"), ({"size": 400}, "737 bytes")],
)
def test_a_budget_out_of_reach_names_the_pin_that_holds_it_up(folder, budget, least):
    # 150 weights at 2 bits and 400 at 8
    with pytest.raises(InfeasibleBudgetError, match=f"{least}.* with pinned to 8 by rule 'body'") as told:
        replan(folder, PlanSpec.model_validate(budget | {"pin": {"body": 8}}))
    assert "pins" in told.value.remedy or "rules" in told.value.remedy


def test_rules_that_contradict_name_each_other(folder):
    rules = [{"match": "body", "pin": 2}, {"match": "Conv", "min_bits": 4}]
    with pytest.raises(
        SpecError, match="pinned to 2 by rule 'body'; limited to at least 4 by rule 'Conv' contra"
    ):
        replan(folder, PlanSpec.model_validate({"size": 600, "rules": rules}))


@pytest.mark.parametrize("name", ["sensitivity.json", "costs.json"])
def test_tables_of_another_format_are_refused(folder, name):
    table = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**table, "version": 99}))
    with pytest.raises(
        SpecError, match=rf"{name}.*not what a quantization or an analysis of this version writes at version"
    ):
        replan(folder, PlanSpec.model_validate({"size": 600}))


def test_what_cannot_be_is_said(folder, tmp_path):
    with pytest.raises(InfeasibleBudgetError, match="smallest reachable file is 437 bytes"):
        replan(folder, PlanSpec.model_validate({"size": 400}))
    with pytest.raises(SpecError, match="bitwright profile"):
        replan(folder, PlanSpec.model_validate({"latency": "1ms"}))
    with pytest.raises(SpecError, match="cannot be read"):
        replan(tmp_path / "nowhere", PlanSpec())
    (folder / "costs.json").write_text("{}")
    with pytest.raises(SpecError, match="not what a quantization or an analysis"):
        replan(folder, PlanSpec())


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        (
            lambda costs: costs["layers"][1]["bytes"].pop("4"),
            "body may be given 4 bits, for which bytes has no",
        ),
        (
            lambda costs: costs["layers"][1]["activation_bits"].pop("4"),
            "for which activation_bits has no entry",
        ),
        (
            lambda costs: costs["layers"][1].update(latency={"2": 1.0, "8": 1.0}),
            "for which latency has no entry",
        ),
        (lambda costs: costs.update(ties=[["stem", "foot"]]), "foot is tied, and no layer has that name"),
        (lambda costs: costs["layers"].append(costs["layers"][0]), "layer stem has two rows"),
    ],
)
def test_gaps_in_a_table_of_costs_are_named(folder, cut, told):
    costs = json.loads((folder / "costs.json").read_text())
    cut(costs)
    (folder / "costs.json").write_text(json.dumps(costs))
    with pytest.raises(SpecError, match=told):
        replan(folder, PlanSpec.model_validate({"size": 600}))


def test_pairs_of_layers_count_again(folder):
    pairs = np.zeros((3, 3, 3, 3))
    pairs[1, 0, 2, 0] = pairs[2, 0, 1, 0] = 100.0  # body and head at 2 bits together
    table, _ = tables("interaction", interactions="pairs.npz")
    (folder / "sensitivity.json").write_text(table.model_dump_json())
    np.savez(folder / "pairs.npz", layers=np.array(list(SIZES)), pairs=pairs, pairs_stderr=0 * pairs)
    tight = PlanSpec.model_validate({"size": 450})
    assert replan(folder, tight).bits != {"stem": 2, "body": 2, "head": 2}
    plan = replan(folder, PlanSpec.model_validate({"size": 437}))
    assert plan.predicted_loss == pytest.approx(100 + 6 * 4.0**-2)
    table, _ = tables("output", interactions="pairs.npz")
    (folder / "sensitivity.json").write_text(table.model_dump_json())
    assert replan(folder, tight) == plan_bits(PlanProblem.of(*tables()), {"bytes": 450})


def test_pairs_know_nothing_of_float(folder):
    table, costs = tables("interaction", interactions="pairs.npz")
    rows = [
        row.model_copy(
            update={
                "bits": (*BITS, 32),
                "bytes": row.bytes | {32: 4 * row.parameters},
                "activation_bits": row.activation_bits | {32: 32},
            }
        )
        for row in costs.layers
    ]
    costs = costs.model_copy(update={"layers": tuple(rows)})
    scored = [row.model_copy(update={"sensitivity": row.sensitivity | {32: 0.0}}) for row in table.layers]
    table = table.model_copy(update={"layers": tuple(scored)})
    pairs = np.zeros((3, 3, 3, 3))
    pairs[1, 2, 2, 0] = pairs[2, 0, 1, 2] = 100.0  # body at 8 bits and head at 2
    (folder / "sensitivity.json").write_text(table.model_dump_json())
    (folder / "costs.json").write_text(costs.model_dump_json())
    np.savez(folder / "pairs.npz", layers=np.array(list(SIZES)), pairs=pairs, pairs_stderr=0 * pairs)
    plan = replan(folder, PlanSpec.model_validate({"size": 1300}))
    assert plan.bits == {"stem": 32, "body": 8, "head": 32}
    assert plan.predicted_loss == pytest.approx(2 * 4.0**-8)


def test_pairs_keep_the_widths_that_they_were_measured_at(folder):
    """A job may take the sensitivities of an earlier one, and give its layers fewer bits to choose from."""
    table, costs = tables("interaction", interactions="pairs.npz")
    rows = [
        row.model_copy(update={"bits": (4, 8), "bytes": {4: row.bytes[4], 8: row.bytes[8]}})
        for row in costs.layers
    ]
    costs = costs.model_copy(update={"layers": tuple(rows)})
    pairs = np.zeros((3, 3, 3, 3))
    pairs[0, 1, 1, 1] = pairs[1, 1, 0, 1] = 100.0  # stem and body at 4 bits
    (folder / "sensitivity.json").write_text(table.model_dump_json())
    (folder / "costs.json").write_text(costs.model_dump_json())
    np.savez(folder / "pairs.npz", layers=np.array(list(SIZES)), pairs=pairs, pairs_stderr=0 * pairs)
    assert replan(folder, PlanSpec.model_validate({"size": 650})).bits == {"stem": 8, "body": 4, "head": 8}
    assert replan(folder, PlanSpec.model_validate({"size": 900})).bits == dict.fromkeys(SIZES, 8)
    np.savez(folder / "pairs.npz", layers=np.array(list(SIZES)), pairs=pairs[:, :2, :, :2], pairs_stderr=0.0)
    with pytest.raises(SpecError, match="measured for another table"):
        replan(folder, PlanSpec.model_validate({"size": 650}))


def test_pairs_are_shrunk_as_by_the_job_that_measured_them(folder):
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(3, 3, 3, 3))
    pairs = pairs + pairs.transpose(2, 3, 0, 1)
    pairs[np.arange(3), :, np.arange(3)] = 0
    errors = np.full_like(pairs, 0.4)
    table, costs = tables("interaction", interactions="pairs.npz")
    (folder / "sensitivity.json").write_text(table.model_dump_json())
    nothing = np.zeros((3, 3))
    measured = Interactions(
        tuple(SIZES), nothing, nothing, nothing, nothing, pairs, errors, samples=8, stopped="all samples used"
    )
    measured.save(folder / "pairs.npz")
    told = PairLosses(tuple(SIZES), (BITS,) * 3, measured.trusted_pairs)
    for size in range(440, 900, 20):
        expected = plan_bits(PlanProblem.of(table, costs, pairs=told), {"bytes": size})
        assert replan(folder, PlanSpec.model_validate({"size": size})) == expected


def test_it_loads_neither_torch_nor_the_graph():
    code = "import sys, quant_core.allocation.replan; assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_hawq_v2_follows_the_traces(folder):
    plan = replan(folder, PlanSpec.model_validate({"size": 550, "allocation": "hawq_v2"}))
    assert plan.bits["head"] >= plan.bits["body"] >= plan.bits["stem"]
    assert "by mean trace" in plan.layers[0].reason


def test_hawq_v2_with_two_budgets_names_the_field_to_change(folder):
    spec = PlanSpec.model_validate({"size": 550, "effective_bits": 5, "allocation": "hawq_v2"})
    with pytest.raises(SpecError, match="Keep one budget, or use the allocation `optimal`") as caught:
        replan(folder, spec)
    assert caught.value.where == "allocation"
