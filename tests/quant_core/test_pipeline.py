"""The whole job on the real ResNet-20, with few samples and widths; what takes several jobs, on a small net."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from quant_core.allocation.replan import replan
from quant_core.artifacts import ARTIFACTS
from quant_core.errors import CancelledError, InfeasibleBudgetError, SamplesError, SpecError
from quant_core.pipeline import quantize, validate
from quant_core.preflight import inspect_model
from quant_core.spec import STAGES, PlanSpec, QuantizeSpec, Report, SensitivityTable
from tests.quant_core.export.networks import HEADER, parse

DATA = Path(__file__).parents[2] / "benchmarks" / "data"
MODEL = DATA / "resnet20_cifar10.onnx"
SPEC = {"size": 0.16, "bits": [4, 8], "pin": {"/fc/Gemm": 6}, "exclude": ["/conv1/*"]}
SMALL = """g (float[n,3,12,12] x) => (float[n,10] y) {
    [stem] a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
    r = Relu(a)
    [one] b = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r, w2, b2)
    q = Relu(b)
    [two] c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(q, w3, b3)
    s = Add(c, r)
    t = Relu(s)
    p = GlobalAveragePool(t)
    f = Flatten(p)
    [head] y = Gemm<transB=1>(f, w4, b4)
}"""
SHAPES = {
    "w1": (24, 3, 3, 3), "w2": (24, 24, 3, 3), "w3": (24, 24, 3, 3), "w4": (10, 24),
    "b1": (24,), "b2": (24,), "b3": (24,), "b4": (10,),
}  # fmt: skip
SMALL_SPEC = {"size": 0.2, "bits": [2, 4, 8], "pin": {"head": 8}}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    path = tmp_path_factory.mktemp("samples") / "samples.npz"
    with np.load(DATA / "cifar10_calibration.npz") as full:
        np.savez(path, input=full["input"][:48], labels=full["labels"][:48])
    return path


@pytest.fixture(scope="module")
def result(samples, tmp_path_factory):
    out, events = tmp_path_factory.mktemp("job") / "new" / "out", []
    with pytest.MonkeyPatch.context() as patch:
        # Ranges are those of runs that other stages make.
        patch.delattr("quant_core.calibration.observe.activation_ranges")
        report = quantize(MODEL, samples, QuantizeSpec.model_validate(SPEC), out, events.append)
    return out, report, events


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A network of four layers, samples for it, and what a job made of them."""
    folder, rng = tmp_path_factory.mktemp("small"), np.random.default_rng(0)
    onnx.save(parse(HEADER + SMALL, **SHAPES), folder / "net.onnx")
    np.savez(folder / "samples.npz", x=rng.standard_normal((48, 3, 12, 12)).astype(np.float32))
    files = folder / "net.onnx", folder / "samples.npz"
    return files, folder / "out", quantize(*files, QuantizeSpec.model_validate(SMALL_SPEC), folder / "out")


def test_all_files_are_there_and_agree(result):
    out, report, _ = result
    assert sorted(path.name for path in out.iterdir()) == sorted(ARTIFACTS)
    written = Report.model_validate_json((out / "report.json").read_text())
    assert written == report
    assert report.model.float_bytes == MODEL.stat().st_size
    assert report.model.quantized_bytes == (out / "model.onnx").stat().st_size <= report.model.budget_bytes
    assert report.model.budget_bytes == int(0.16 * report.model.float_bytes)
    assert abs(report.model.predicted_bytes / report.model.quantized_bytes - 1) < 0.02
    assert report.model.macs == 40_813_184  # 40.55 M of the 3x3 layers and head, 0.26 M of the projections
    assert {"trace", "trace_stderr", "sensitivity", "reason"} <= json.loads(
        (out / "report.json").read_text()
    )["layers"][0].keys()


def test_rules_are_kept_and_told(result):
    _, report, _ = result
    bits = {layer.name: layer.weight_bits for layer in report.layers}
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert bits.pop("/fc/Gemm") == 6
    assert bits.pop("/conv1/Conv") == 32
    assert set(bits.values()) <= {4, 8}
    assert "pinned to 6" in reasons["/fc/Gemm"]
    assert "excluded" in reasons["/conv1/Conv"]
    assert all("budget" in reasons[name] for name in bits)


def test_every_layer_runs_as_it_was_meant_to(result):
    _, report, _ = result
    kernels = {layer.name: layer.kernel for layer in report.layers}
    assert kernels.pop("/fc/Gemm") == "QGemm"
    assert kernels.pop("/conv1/Conv") in {"Conv", "FusedConv"}
    assert set(kernels.values()) == {"QLinearConv"}
    # How fast the file runs is the machine's affair as well, and no other warning has a cause.
    assert all("of the float model's speed" in told for told in report.warnings)


def test_measurements_are_those_of_the_file(result, samples):
    out, report, _ = result
    onnx.checker.check_model(out / "model.onnx", full_check=True)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    with np.load(samples) as data:
        correct = (session.run(None, {"input": data["input"]})[0].argmax(1) == data["labels"]).mean()
    assert correct > 0.8
    assert report.metrics.samples == 12
    assert report.metrics.sqnr_db > 10
    assert abs(report.simulation.predicted_sqnr_db - report.simulation.measured_sqnr_db) < 1
    assert report.simulation.agreement_sqnr_db > 25


def test_stages_come_in_order_and_end(result):
    _, report, events = result
    seen = list(dict.fromkeys(event.stage for event in events))
    assert seen == list(STAGES)
    last = {event.stage: event.fraction for event in events}
    assert last["report"] == 1
    assert {timing.stage for timing in report.timings} < set(STAGES)


def test_table_and_front_cover_the_layers(result):
    out, report, _ = result
    table = SensitivityTable.model_validate_json((out / "sensitivity.json").read_text())
    assert [row.name for row in table.layers] == [layer.name for layer in report.layers]
    assert all(row.trace is not None and row.trace > 0 and row.trace_stderr > 0 for row in table.layers)
    sizes = [point.bytes for point in report.pareto]
    losses = [point.predicted_loss for point in report.pareto]
    assert sizes == sorted(set(sizes))
    assert losses == sorted(set(losses), reverse=True)
    assert any(size <= report.model.budget_bytes for size in sizes)


def test_same_seed_same_bytes(small, tmp_path):
    files, out, report = small
    again = quantize(*files, QuantizeSpec.model_validate(SMALL_SPEC), tmp_path)
    assert len(set(report.plan.bits.values())) > 1  # a plan that had to choose
    assert again.plan == report.plan
    for name in ("model.onnx", "sensitivity.json", "pareto.json"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name


def test_cancelling_leaves_what_was_there(samples, tmp_path):
    kept = tmp_path / "model.onnx"
    kept.write_text("mine")
    (tmp_path / "report.json").write_text("of an earlier job")

    def cancel(event):
        if event.stage == "rounding":
            raise CancelledError

    with pytest.raises(CancelledError):
        quantize(MODEL, samples, QuantizeSpec(), tmp_path, cancel)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "report.json"]
    assert kept.read_text() == "mine"


def test_a_budget_out_of_reach_says_what_is_in_reach(samples, tmp_path):
    spec = QuantizeSpec.model_validate({"size": 0.02})
    with pytest.raises(InfeasibleBudgetError, match=r"smallest reachable file is (\d+) bytes") as caught:
        quantize(MODEL, samples, spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    smallest = inspect_model(MODEL).smallest_bytes
    assert str(caught.value).count(f"{smallest} bytes") == 2  # reachable and to be allowed: one size
    validate(MODEL, samples, QuantizeSpec.model_validate({"size": smallest}))
    with pytest.raises(InfeasibleBudgetError):
        validate(MODEL, samples, QuantizeSpec.model_validate({"size": smallest * 97 // 100}))


@pytest.mark.parametrize(
    "spec",
    [
        {"pin": {"nothing*": 4}},
        {"device": "cuda:99"},
        {"ties": [["nothing*", "fc.weight"]]},
        {"loss_weights": {"nothing": 2}},
    ],
)
def test_requests_that_name_what_is_not_there_are_refused(spec, samples):
    with pytest.raises(SpecError, match=r"nothing|cuda:99"):
        validate(MODEL, samples, QuantizeSpec.model_validate(spec))


def test_a_single_sample_is_refused_before_the_job_starts(samples, tmp_path):
    with np.load(samples) as several:
        np.savez(tmp_path / "one.npz", input=several["input"][:1])
    with pytest.raises(SamplesError) as caught:
        validate(MODEL, tmp_path / "one.npz", QuantizeSpec())
    assert caught.value.where == str(tmp_path / "one.npz")


def test_too_few_held_back_samples_for_a_band_are_told_as_such(samples, tmp_path):
    with np.load(samples) as several:
        np.savez(tmp_path / "few.npz", input=several["input"][:6])
    spec = QuantizeSpec.model_validate({"max_drop": "sqnr>=20dB", "held_back": 0.1})
    with pytest.raises(SamplesError, match="leaves 1 in all") as caught:
        validate(MODEL, tmp_path / "few.npz", spec)
    assert caught.value.where == "held_back"
    validate(MODEL, tmp_path / "few.npz", spec.model_copy(update={"held_back": 0.4}))


def test_a_folder_that_cannot_be_written_is_named(samples, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(SpecError, match="file"):
        quantize(MODEL, samples, QuantizeSpec(), blocked)


def test_sensitivities_of_an_earlier_job_give_a_new_file(small, tmp_path):
    files, out, report = small
    events = []
    spec = QuantizeSpec.model_validate(SMALL_SPEC | {"size": 0.24})
    again = quantize(*files, spec, tmp_path / "new", events.append, earlier=out)
    assert (tmp_path / "new" / "sensitivity.json").read_text() == (out / "sensitivity.json").read_text()
    assert not any("probe" in event.message for event in events)
    assert report.model.quantized_bytes < again.model.quantized_bytes <= again.model.budget_bytes
    same = quantize(*files, QuantizeSpec.model_validate(SMALL_SPEC), tmp_path / "same", earlier=out)
    assert (tmp_path / "same" / "model.onnx").read_bytes() == (out / "model.onnx").read_bytes()
    assert same.plan == report.plan
    nearest, told = QuantizeSpec.model_validate(SMALL_SPEC | {"rounding": "nearest"}), []
    with pytest.raises(SpecError, match="other rounding"):
        quantize(*files, nearest, tmp_path / "other", told.append, earlier=out)
    assert {event.stage for event in told} == {"ingest"}
    with pytest.raises(SpecError, match=r"sensitivity\.json: it cannot be read"):
        quantize(*files, spec, tmp_path / "none", earlier=tmp_path)
    fisher = QuantizeSpec.model_validate(SMALL_SPEC | {"sensitivity": "fisher"})
    with pytest.raises(SpecError, match="estimated with sensitivity output, and fisher is asked"):
        quantize(*files, fisher, tmp_path / "other", earlier=out)


def test_a_plan_from_the_tables_is_the_one_that_the_job_solved(result):
    out, report, _ = result
    assert json.loads((out / "costs.json").read_text())["followed"]
    plan = replan(out, PlanSpec.model_validate({"size": report.model.budget_bytes}))
    solved = report.trials[0]
    assert (solved.name, solved.bytes) == ("optimal", plan.predicted_bytes)
    assert solved.predicted_loss == pytest.approx(plan.predicted_loss)


def test_the_uniform_plan_is_measured_beside_the_choice(result):
    _, report, _ = result
    names = [trial.name for trial in report.trials]
    assert names[0] == "optimal"
    chosen = [trial for trial in report.trials if trial.chosen]
    assert len(chosen) == 1
    assert chosen[0].measured_loss == min(trial.measured_loss for trial in report.trials)
    assert chosen[0].samples == 12


def test_an_accuracy_band_comes_back_with_its_evaluations(small, tmp_path):
    files, _, _ = small
    spec = QuantizeSpec.model_validate(
        {"max_drop": "sqnr>=18dB", "bits": [3, 4, 6, 8], "sensitivity": "gauss_newton", "held_back": 0.5}
    )
    report = quantize(*files, spec, tmp_path / "out")
    band = report.band
    assert band is not None
    assert 1 < len(band.evaluations) <= 8
    assert band.met
    best = band.evaluations[band.chosen]
    assert best.bytes == (tmp_path / "out" / "model.onnx").stat().st_size == report.model.quantized_bytes
    assert best.value >= 18
    assert best.bound is not None
    as_good = [one for one in band.evaluations if one.inside and (one.bound or -np.inf) >= best.bound]
    assert best.bytes <= min(one.bytes for one in as_good)
    assert best.low < best.value < best.high
    assert band.samples == report.metrics.samples == 12
    assert report.metrics.sqnr_db > 15
    assert report.model.budget_bytes is None
