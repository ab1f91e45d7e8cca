"""Layers that lose most by rounded activations run in float, within a bound on time, and nothing else changes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from quant_core.export.targets.target_of import target_of
from quant_core.file_making.islands import Islands
from quant_core.pipeline import quantize
from quant_core.preparation.float_speed import may_leave_integers
from quant_core.spec import QuantizeSpec, Report
from tests.networks import network

SPEC = {
    "effective_bits": 8,
    "bits": [8],
    "rounding": "nearest",
    "equalize": "none",
    "activation_range": "mse",  # ranges by output would clip what need not reach so far
    "float_islands": 0.5,
}


def net(folder: Path, reach: float) -> None:
    """Sines of a convolution, the first channel `reach` times larger, read by one that makes up for it."""
    rng = np.random.default_rng(0)
    values = {"k": np.ones((1, 32, 1, 1))}
    values["k"][0, 0] = reach
    for name, shape in {"w1": (32, 4, 3, 3), "w2": (32, 32, 3, 3), "w3": (4, 32, 3, 3)}.items():
        values[name] = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        values[f"b{name[1]}"] = rng.normal(size=shape[:1])
    values["w2"] /= values["k"]
    model = network(
        """net (float[n, 4, 12, 12] x) => (float[n, 4, 12, 12] y) {
        [one] a = Conv<pads=[1,1,1,1]>(x, w1, b1)
        [bend] s = Sin(a)
        [stretch] h = Mul(s, k)
        [two] b = Conv<pads=[1,1,1,1]>(h, w2, b2)
        [again] t = Sin(b)
        [three] y = Conv<pads=[1,1,1,1]>(t, w3, b3)
    }""",
        values,
    )
    onnx.save(model, folder / "net.onnx")
    np.savez(folder / "x.npz", x=rng.normal(size=(24, 4, 12, 12)).astype(np.float32))


def job(folder: Path, name: str, **more: object) -> tuple[Report, list[str]]:
    told: list[str] = []
    spec = QuantizeSpec.model_validate(SPEC | more)
    out = folder / name
    report = quantize(folder / "net.onnx", folder / "x.npz", spec, out, lambda p: told.append(p.message))
    return report, told


def error_db(folder: Path, name: str) -> float:
    """Output against the float file's, in onnxruntime, over all samples."""
    with np.load(folder / "x.npz") as held:
        x = held["x"]
    wanted, given = (
        onnxruntime.InferenceSession(path).run(None, {"x": x})[0]
        for path in (folder / "net.onnx", folder / name / "model.onnx")
    )
    return float(10 * np.log10((wanted**2).sum() / ((wanted - given) ** 2).sum()))


@pytest.fixture(scope="module")
def stretched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stretched")
    net(folder, 300.0)
    return folder


def test_the_layer_behind_a_tensor_that_bears_no_eight_bits_runs_in_float(stretched: Path) -> None:
    report, _ = job(stretched, "with")
    job(stretched, "without", float_islands=0)
    assert {layer.name: layer.form for layer in report.layers} == {
        "one": "static",
        "two": "weight_only",
        "three": "static",
    }
    assert {layer.name: layer.kernel for layer in report.layers if layer.form == "static"} == dict.fromkeys(
        ("one", "three"), "QLinearConv"
    )
    assert abs(report.model.quantized_bytes - report.model.predicted_bytes) <= 32
    assert error_db(stretched, "with") > error_db(stretched, "without") + 10
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert re.match("kept float: with its activations in 8 bits the network loses (9.|100)%", reasons["two"])
    assert not any("kept float" in reasons[name] for name in ("one", "three"))
    assert sum("1 layer runs in float on packed weights (two)" in told for told in report.warnings) == 1


def test_layers_that_a_plan_leaves_in_float_take_their_rounding_out_of_the_bytes(stretched: Path) -> None:
    report, _ = job(stretched, "mixed", bits=[4, 32], effective_bits=24, float_islands=0)
    assert {layer.form for layer in report.layers} == {"static", "float"}
    assert abs(report.model.quantized_bytes - report.model.predicted_bytes) <= 32


def test_a_bound_on_time_is_kept(stretched: Path) -> None:
    report, _ = job(stretched, "bound", float_islands=0.001)
    assert {layer.form for layer in report.layers} == {"static"}
    assert not any("run in float" in told for told in report.warnings)


def test_a_bound_that_is_left_open_grows_while_the_answer_is_ruined(stretched: Path, tmp_path: Path) -> None:
    first, _ = job(stretched, "first", float_islands=0.15)
    open_, _ = job(stretched, "open", float_islands=None)
    assert {layer.form for layer in first.layers} == {"static"}
    assert {layer.name for layer in open_.layers if layer.form == "weight_only"} == {"two"}
    assert error_db(stretched, "open") > error_db(stretched, "first") + 10

    net(tmp_path, 100.0)  # loses more than is harmless, and less than ruins
    report, told = job(tmp_path, "mild", float_islands=None)
    assert any("rounded alone" in message for message in told)
    assert {layer.form for layer in report.layers} == {"static"}


def test_activations_that_lose_little_beside_the_weights_take_one_look(tmp_path: Path) -> None:
    net(tmp_path, 1.0)
    report, told = job(tmp_path, "out", bits=[2], effective_bits=2)
    assert {layer.form for layer in report.layers} == {"static"}
    assert sum("rounded activations of" in message for message in told) == 1
    assert not any("rounded alone" in message for message in told)


def head(folder: Path) -> None:
    """A convolution whose first channel reaches further, and a small product behind the mean over all places."""
    rng = np.random.default_rng(0)
    values = {"w3": rng.normal(size=(32, 8))}
    for name, shape in {"w1": (32, 32, 3, 3), "w2": (32, 32, 3, 3)}.items():
        values[name] = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
    values |= {f"b{place}": np.zeros(size) for place, size in ((1, 32), (2, 32), (3, 8))}
    values["w2"][0] *= 100
    values["w3"][0] /= 100
    model = network(
        """net (float[n, 32, 24, 24] x) => (float[n, 8] y) {
        [one] a = Conv<pads=[1,1,1,1]>(x, w1, b1)
        [cut] h = Relu(a)
        [two] b = Conv<pads=[1,1,1,1], strides=[4,4]>(h, w2, b2)
        [bend] r = Relu(b)
        [mean] m = GlobalAveragePool(r)
        [flat] f = Flatten(m)
        [three] y = Gemm(f, w3, b3)
    }""",
        values,
    )
    onnx.save(model, folder / "net.onnx")
    np.savez(folder / "x.npz", x=rng.normal(size=(24, 32, 24, 24)).astype(np.float32))


def test_a_layer_that_takes_next_to_no_time_runs_in_float_where_little_is_lost(tmp_path: Path) -> None:
    head(tmp_path)
    report, _ = job(tmp_path, "with", float_islands=None)
    job(tmp_path, "without", float_islands=0)
    assert {layer.name: layer.form for layer in report.layers} == {
        "one": "static",
        "two": "static",
        "three": "weight_only",
    }
    assert abs(report.model.quantized_bytes - report.model.predicted_bytes) <= 32
    assert error_db(tmp_path, "with") > error_db(tmp_path, "without") + 0.5
    assert any("1 layer runs in float on packed weights (three)" in told for told in report.warnings)


def small_end(folder: Path, reach: float) -> None:
    """Two convolutions, sines whose first channel reaches further, and a convolution of some 7 % of the time."""
    rng = np.random.default_rng(0)
    values = {"k": np.ones((1, 32, 1, 1))}
    values["k"][0, 0] = reach
    for name, shape in {"w1": (32, 32, 3, 3), "w2": (32, 32, 3, 3), "w3": (8, 32, 3, 3)}.items():
        values[name] = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
    values["w3"] /= values["k"]
    model = network(
        """net (float[n, 32, 24, 24] x) => (float[n, 8, 24, 24] y) {
        [one] a = Conv<pads=[1,1,1,1]>(x, w1)
        [two] b = Conv<pads=[1,1,1,1]>(a, w2)
        [bend] s = Sin(b)
        [stretch] h = Mul(s, k)
        [three] y = Conv<pads=[1,1,1,1]>(h, w3)
    }""",
        values,
    )
    onnx.save(model, folder / "net.onnx")
    np.savez(folder / "x.npz", x=rng.normal(size=(24, 32, 24, 24)).astype(np.float32))


def test_values_that_eight_bits_leave_coarse_are_worth_some_time(tmp_path: Path) -> None:
    small_end(tmp_path, 12.0)
    report, _ = job(tmp_path, "coarse", float_islands=None)
    bounded, _ = job(tmp_path, "bounded", float_islands=0.03)
    assert {layer.name for layer in report.layers if layer.form == "weight_only"} == {"three"}
    assert {layer.form for layer in bounded.layers} == {"static"}
    assert 20 < error_db(tmp_path, "bounded") < error_db(tmp_path, "coarse") - 4

    small_end(tmp_path, 4.0)  # above 30 dB in integers
    fine, _ = job(tmp_path, "fine", float_islands=None)
    assert {layer.form for layer in fine.layers} == {"static"}


def test_a_band_that_eight_bit_activations_miss_is_kept_with_layers_in_float(tmp_path: Path) -> None:
    net(tmp_path, 10.0)
    asked = {"effective_bits": None, "max_drop": "sqnr>=38dB", "held_back": 0.5, "float_islands": None}
    report, _ = job(tmp_path, "more", **asked)
    assert report.band is not None
    assert report.band.met
    assert not report.band.evaluations[0].inside
    assert report.metrics.sqnr_db is not None
    assert report.metrics.sqnr_db > 38
    assert any("run in float on packed weights" in told for told in report.warnings)

    bounded, _ = job(tmp_path, "bounded", **asked | {"float_islands": 0.001})
    assert bounded.band is not None
    assert not bounded.band.met
    assert {layer.name: layer.form for layer in bounded.layers}["two"] == "static"

    ruled, _ = job(tmp_path, "ruled", **asked | {"rules": [{"match": "*", "activation_bits": 8}]})
    assert ruled.band is not None
    assert len(ruled.band.evaluations) == 3  # no file is made again as it was


def test_islands_are_for_eight_bits_on_a_cpu_within_bytes() -> None:
    def takes(**given: object) -> bool:
        spec = QuantizeSpec.model_validate(given)
        return may_leave_integers(spec, target_of(spec))

    assert takes()
    assert takes(size=0.2)
    assert takes(max_drop="0.5%")
    assert not takes(float_islands=0)
    assert not takes(activation_bits="float")
    assert not takes(activation_bits=[8, 16])
    assert not takes(target="tensorrt")
    assert not takes(target="portable")
    assert not takes(bops=0.1)
    assert not takes(peak_memory=0.5)


def test_what_is_no_island_has_no_reason() -> None:
    islands = Islands({"a": 0.43}, 0.09, 0.05, 0.07)
    assert islands.reason("b") is None
    assert "43%" in (islands.reason("a") or "")
    assert "7% more time" in islands.note


def test_a_graph_that_demands_four_samples_is_given_four_at_a_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = network(
        """net (float[4, 32, 12, 12] x) => (float[4, 6] y) <int64[2] rows = {4, -1}> {
        a = Conv<pads=[1,1,1,1]>(x, w)
        b = Sin(a)
        f = Reshape(b, rows)
        y = Gemm(f, v)
    }""",
        {name: rng.normal(size=shape) / 20 for name, shape in {"w": (32, 32, 3, 3), "v": (4608, 6)}.items()},
    )
    onnx.save(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(24, 32, 12, 12)).astype(np.float32))
    report, told = job(tmp_path, "rows")
    assert any(message == "rounded activations of 8 samples" for message in told)
    assert report.metrics.sqnr_db > 25
