"""Equalisation in whole jobs, judged by onnxruntime."""

import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quant_core.allocation.replan import replan
from quant_core.analysis import analyze
from quant_core.pipeline import quantize
from quant_core.preparation import float_speed
from quant_core.spec import AnalyzeSpec, PlanSpec, QuantizeSpec, SensitivityTable

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'
NET = (
    "g (float[n,9,48] x) => (float[n,9,16] y) { a = MatMul(x, w1) c = Add(a, b1) h = Gelu(c) d = MatMul(h, w2) "
    "e = Add(x, d) z = LayerNormalization(e, g, b) y = MatMul(z, w3) }"
)
SHAPES = {"w1": (48, 96), "b1": (96,), "w2": (96, 48), "g": (48,), "b": (48,), "w3": (48, 16)}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outliers")
    proto = onnx.parser.parse_model(HEADER + NET)
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        values = rng.standard_normal(shape) / np.sqrt(shape[0])
        if name == "g":
            values = np.where(np.arange(48) < 2, 25.0, 1.0)
        proto.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    onnx.save(proto, folder / "m.onnx")
    x = rng.standard_normal((64, 9, 48)).astype(np.float32)
    x[..., 5] *= 40
    np.savez(folder / "s.npz", x=x)
    return folder


def run(job, **options):
    spec = QuantizeSpec.model_validate(
        {"size": 2**40, "bits": "8", "loss": "squared_error", "workers": 1, "float_islands": 0, **options}
    )
    return quantize(job / "m.onnx", job / "s.npz", spec, job / options.get("equalize", "default"))


def test_outliers_cost_less(job):
    plain, scaled = run(job, equalize="none"), run(job)
    assert scaled.metrics.sqnr_db > plain.metrics.sqnr_db + 3
    assert [kernel.kernel for kernel in scaled.layers] == [kernel.kernel for kernel in plain.layers]
    assert any("channels were scaled" in note for note in scaled.warnings)
    assert not any("channels were scaled" in note for note in plain.warnings)
    assert scaled.model.predicted_bytes == pytest.approx(scaled.model.quantized_bytes, rel=0.01)


def test_float_activations_have_nothing_to_gain(job):
    report = run(job, equalize="auto", activation_bits=32)
    assert not any("channels were scaled" in note for note in report.warnings)


def test_a_job_from_earlier_sensitivities_scales_channels_as_they_were_scaled(job):
    wide = {"size": 2**40, "bits": "4,8", "loss": "squared_error", "workers": 1}
    quantize(job / "m.onnx", job / "s.npz", QuantizeSpec.model_validate(wide), job / "wide")
    narrow = QuantizeSpec.model_validate(wide | {"effective_bits": 5})
    quantize(job / "m.onnx", job / "s.npz", narrow, job / "again", earlier=job / "wide")
    quantize(job / "m.onnx", job / "s.npz", narrow, job / "alone")
    told = {name: _table(job / name).equalized_bits for name in ("wide", "again", "alone")}
    assert told == {"wide": 8.0, "again": 8.0, "alone": 5.0}


def _table(folder):
    return SensitivityTable.model_validate_json((folder / "sensitivity.json").read_text())


@pytest.mark.parametrize("rounding", ["gptq", "nearest"])
def test_an_analysis_and_what_is_made_of_it_score_the_layers_as_a_job_does(job, rounding, monkeypatch):
    monkeypatch.setattr(float_speed, "_LEAST_ALONE", math.inf)  # so small a net runs in float
    asked = {
        "bits": "3,4,8",
        "loss": "squared_error",
        "workers": 1,
        "effective_bits": 5,
        "rounding": rounding,
    }
    alone, analysed, made = (job / f"{rounding}-{name}" for name in ("alone", "analysed", "made"))
    spec = QuantizeSpec.model_validate(asked)
    quantize(job / "m.onnx", job / "s.npz", spec, alone)
    analyze(job / "m.onnx", job / "s.npz", AnalyzeSpec.model_validate(asked), analysed)
    quantize(job / "m.onnx", job / "s.npz", spec, made, earlier=analysed)

    def read(folder):
        return SensitivityTable.model_validate_json((folder / "sensitivity.json").read_text())

    assert read(alone).equalized_bits == read(analysed).equalized_bits == 5
    assert read(alone).layers == read(analysed).layers == read(made).layers
    assert (alone / "model.onnx").read_bytes() == (made / "model.onnx").read_bytes()
    planned = replan(analysed, PlanSpec.model_validate({"effective_bits": 5}))
    assert planned == replan(alone, PlanSpec.model_validate({"effective_bits": 5}))
    # For other bits channels are scaled otherwise, and layers lose something else.
    other = AnalyzeSpec.model_validate(asked | {"effective_bits": 8})
    assert analyze(job / "m.onnx", job / "s.npz", other, job / "other").layers != read(alone).layers


@pytest.fixture(scope="module")
def swish(tmp_path_factory):
    """Convolutions with hard-swish between them, whose channels differ much."""
    folder = tmp_path_factory.mktemp("swish")
    conv = "Conv<kernel_shape=[{0},{0}], group={1}>"
    proto = onnx.parser.parse_model(
        HEADER + "g (float[n,3,16,16] x) => (float[n,4,8,8] y) { "
        f"a = {conv.format(7, 1)}(x, w1, b1) h = HardSwish(a) b = {conv.format(3, 24)}(h, w2, b2) k = HardSwish(b) "
        f"y = {conv.format(1, 1)}(k, w3, b3) }}"
    )
    rng = np.random.default_rng(0)
    for name, shape in {"w1": (24, 3, 7, 7), "w2": (24, 1, 3, 3), "w3": (4, 24, 1, 1)}.items():
        values = rng.standard_normal(shape) / 3
        if name != "w3":
            values = values * np.exp(1.5 * rng.standard_normal(24)).reshape(-1, 1, 1, 1)
        else:
            values = values / np.abs(values).max()
        proto.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    for name, channels in {"b1": 24, "b2": 24, "b3": 4}.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.zeros(channels, np.float32), name))
    onnx.save(proto, folder / "m.onnx")
    np.savez(folder / "s.npz", x=rng.standard_normal((64, 3, 16, 16)).astype(np.float32))
    return folder


def test_channels_beside_float_operators_get_the_whole_grid(swish):
    plain, scaled = run(swish, equalize="none"), run(swish)
    assert scaled.metrics.sqnr_db > plain.metrics.sqnr_db + 3
    assert [kernel.kernel for kernel in scaled.layers] == ["QLinearConv"] * 3
    assert any("channels were scaled" in note for note in scaled.warnings)


@pytest.mark.parametrize(("equalize", "share"), [("none", 0.5), ("auto", 0.8)])
def test_biases_make_up_for_what_clipped_activations_lose(swish, equalize, share):
    """Means of whole files, in onnxruntime, on samples that no stage saw; scaled channels are clipped less."""
    import onnxruntime

    x = np.random.default_rng(1).standard_normal((64, 3, 16, 16)).astype(np.float32)

    def mean_output(path):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})[0].mean((0, 2, 3))

    expected = mean_output(swish / "m.onnx")
    off = {}
    for corrected in (True, False):
        report = run(swish, bias_correction=corrected, follow=False, equalize=equalize)
        assert any("channels were scaled" in note for note in report.warnings) == (equalize == "auto")
        off[corrected] = np.abs(mean_output(swish / equalize / "model.onnx") - expected).max()
    assert off[True] < share * off[False], off


def test_a_product_in_front_of_all_integer_convolutions_costs_no_more_than_a_pass(tmp_path):
    """Behind them channels lie last, and factors of few are spread over them slowly."""
    proto = onnx.parser.parse_model(
        HEADER + "g (float[n,12,48,48] x) => (float[n,64,46,46] y) { h = Abs(x) y = Conv(h, w) }"
    )
    rng = np.random.default_rng(0)
    size = np.where(np.arange(12) < 1, 6.0, 1.0).reshape(-1, 1, 1)
    w = (rng.standard_normal((64, 12, 3, 3)) / size).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(w, "w"))
    onnx.save(proto, tmp_path / "m.onnx")
    x = (size * rng.standard_normal((16, 12, 48, 48))).astype(np.float32)
    np.savez(tmp_path / "s.npz", x=x)
    assert any("with a product" in note for note in run(tmp_path).warnings)
