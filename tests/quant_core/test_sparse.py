"""Jobs whose layers may keep outliers apart: chosen where they pay, told, taken up again."""

import json

import numpy as np
import onnx
import pytest
from rich.console import Console

from bitwright.cli.plan_table import print_plan
from quant_core.allocation.replan import replan
from quant_core.checkpoints import Checkpoints, find_rounded, keep_rounded
from quant_core.codes import QuantizedWeight
from quant_core.codes.outliers import Outliers, pairs_for
from quant_core.pipeline import quantize
from quant_core.report.headline import mean_bits
from quant_core.spec import PlanSpec, QuantizeSpec, SensitivityTable
from quant_core.spec.width import sparse_of, weight_of, width_of
from tests.quant_core.export.networks import HEADER, parse

SHARE, LIMIT = 0.03, 3.2
SPEC = {"bits": [3], "effective_bits": LIMIT, "sparse": SHARE, "loss": "squared_error"}
SHAPES = {"stem": (32, 8, 3, 3), "middle": (32, 32, 3, 3), "head": (10, 32), "bias": (10,)}
TEXT = """g (float[n,8,8,8] x) => (float[n,10] y) {
    a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, stem)
    r = Relu(a)
    b = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r, middle)
    q = Relu(b)
    p = GlobalAveragePool(q)
    f = Flatten(p)
    y = Gemm<transB=1>(f, head, bias)
}"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("inputs"), np.random.default_rng(0)
    proto = parse(HEADER + TEXT, **SHAPES)
    for tensor in proto.graph.initializer:
        values = rng.standard_t(3, SHAPES[tensor.name]) / np.sqrt(np.prod(SHAPES[tensor.name][1:]))
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))
    onnx.save(proto, folder / "net.onnx")
    np.savez(folder / "samples.npz", x=rng.standard_normal((96, 8, 8, 8)).astype(np.float32))
    return folder / "net.onnx", folder / "samples.npz"


@pytest.fixture(scope="module")
def job(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("job")
    return out, quantize(*inputs, QuantizeSpec.model_validate(SPEC), out)


def test_the_budget_buys_outliers_for_some_layers(job):
    out, report = job
    kept = {layer.name: layer for layer in report.layers if layer.outliers}
    assert 0 < len(kept) < len(report.layers)
    assert all(layer.outliers == pairs_for(SHARE, layer.parameters) for layer in kept.values())
    assert report.plan.costs["effective_bits"] <= LIMIT
    for layer, planned in zip(report.layers, report.plan.layers, strict=True):
        assert planned.sparse == (SHARE if layer.name in kept else None)
    dense = [layer.bytes * 8 / layer.parameters for layer in report.layers if not layer.outliers]
    assert all(layer.bytes * 8 / layer.parameters > 3 for layer in kept.values())
    assert dense
    assert report.simulation.agreement_sqnr_db > 25
    assert {layer.kernel for layer in report.layers} == {"QLinearConv", "QGemm"}
    names = {function.name for function in onnx.load(out / "model.onnx").functions}
    assert names == {"Unpack3", "Outliers"}


def test_files_without_outliers_hold_nothing_of_them(inputs, tmp_path):
    spec = QuantizeSpec.model_validate({**SPEC, "effective_bits": 3})
    report = quantize(*inputs, spec, tmp_path)
    assert not any(layer.outliers for layer in report.layers)
    assert {function.name for function in onnx.load(tmp_path / "model.onnx").functions} == {"Unpack3"}


def test_scores_are_those_of_the_same_bits_times_what_is_left(job):
    out, _ = job
    table = SensitivityTable.model_validate_json((out / "sensitivity.json").read_text())
    for row in table.layers:
        ((width, score),) = row.sparse_sensitivity.items()
        assert width == width_of(3, None, SHARE)
        assert 0 < score < row.sensitivity[3]


def test_earlier_sensitivities_serve_and_give_the_same_file(inputs, job, tmp_path):
    out, _ = job
    quantize(*inputs, QuantizeSpec.model_validate(SPEC), tmp_path, earlier=out)
    assert (tmp_path / "model.onnx").read_bytes() == (out / "model.onnx").read_bytes()


def test_new_plans_know_outliers_but_rules_that_order_layers_do_not(job):
    out, _ = job
    plan = replan(out, PlanSpec.model_validate({"effective_bits": LIMIT}))
    assert any(layer.sparse for layer in plan.layers)
    assert any("outliers" in layer.reason for layer in plan.layers)
    assert {weight_of(width) for width in plan.widths.values()} == {3}
    assert {sparse_of(width) for width in plan.widths.values()} == {0, SHARE}
    assert any(point["sparse"] for point in json.loads((out / "pareto.json").read_text())["points"])
    traced = replan(out, PlanSpec.model_validate({"effective_bits": LIMIT, "allocation": "hawq_v2"}))
    assert not any(layer.sparse for layer in traced.layers)


def test_outliers_survive_an_attempt_that_was_cut_off(tmp_path):
    codes = np.zeros((4, 6), dtype=np.int8)
    codes[1, 2] = 9
    positions = np.array([8], dtype=np.int64)
    weight = QuantizedWeight(
        codes, np.ones(4, np.float32), 0, 4, outliers=Outliers(positions, pairs=3, left=0.5)
    )
    width = width_of(4, None, SHARE)
    keep_rounded(Checkpoints(tmp_path), {"layer": {width: weight}})
    found = find_rounded(Checkpoints(tmp_path))["layer"][width]
    np.testing.assert_array_equal(found.outliers.positions, positions)
    assert (found.outliers.pairs, found.outliers.left) == (3, 0.5)
    np.testing.assert_array_equal(found.dequantize(), weight.dequantize())


def test_people_are_told_of_outliers(job):
    out, report = job
    page = (out / "report.html").read_text()
    assert f"{max(layer.outliers for layer in report.layers)} outliers" in page
    weights = sum(layer.parameters for layer in report.layers)
    assert mean_bits(report) == pytest.approx(3 + 12 * sum(la.outliers for la in report.layers) / weights)
    console = Console(record=True, width=200)
    print_plan(report.plan, console)
    assert "3 + 3 %" in console.export_text()


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ["reconstruction", "brecq"])
def test_codes_are_tuned_within_reach_of_their_outliers(inputs, rounding, tmp_path):
    spec = QuantizeSpec.model_validate(SPEC | {"rounding": rounding})
    report = quantize(*inputs, spec, tmp_path)
    assert any(layer.outliers for layer in report.layers)
    assert report.simulation.agreement_sqnr_db > 25
