"""Grids of activations are found once, at the bits that a file gives each."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from quant_core.export import place
from quant_core.file_making.activation_grids import ActivationGrids
from quant_core.journal import Journal
from quant_core.preparation import prepare
from quant_core.quantizers.simulation.range_errors import range_errors
from quant_core.spec import QuantizeSpec
from tests.networks import drawn, network


def save_with_weights(text: str, rng: np.random.Generator, path: Path) -> None:
    onnx.save(network(text, drawn(rng, {"v": (16, 4, 1, 1), "w": (8, 16, 1, 1)})), path)


@pytest.fixture
def found(tmp_path: Path) -> tuple[ActivationGrids, dict[str, int]]:
    rng = np.random.default_rng(0)
    save_with_weights(
        "net (float[n, 4, 8, 8] x) => (float[n, 8, 8, 8] y) { h = Conv(x, v) r = Relu(h) y = Conv(r, w) }",
        rng,
        tmp_path / "net.onnx",
    )
    np.savez(tmp_path / "x.npz", x=rng.uniform(-1, 3, (24, 4, 8, 8)).astype(np.float32))
    spec = QuantizeSpec.model_validate({"size": 0.9, "activation_range": "minmax", "float_islands": 0})
    job = prepare(tmp_path / "net.onnx", tmp_path / "x.npz", spec)
    grids = ActivationGrids(job, spec, Journal(), (job.samples,))
    return grids, {layer.name: 8 for layer in job.layers}


def test_a_grid_reaches_from_the_smallest_to_the_largest_value_and_is_found_once(found):
    grids, bits = found
    job = grids.job
    placement = place(job.model, job.layers, bits, 8, job.target, grids.spec)
    first = grids.of(placement)
    assert list(first) == list(placement.points)
    low, high = (float(extreme(job.samples.inputs["x"])) for extreme in (np.min, np.max))
    grid = first["x"]
    assert grid.scale == pytest.approx((high - low) / 255, rel=1e-3)
    assert grid.zero_point == round(-low / grid.scale)
    grids.parts = ()  # nothing is run again
    assert grids.of(placement) == first


@pytest.mark.parametrize("count", [3, 6])
def test_by_default_a_grid_is_found_by_outputs_in_front_of_a_maximum_and_where_samples_suffice(
    tmp_path: Path, count: int
):
    rng = np.random.default_rng(0)
    save_with_weights(
        "net (float[n, 4, 24, 24] x) => (float[n, 8, 1, 1] y) { h = Conv(x, v) g = GlobalMaxPool(h) y = Conv(g, w) }",
        rng,
        tmp_path / "net.onnx",
    )
    np.savez(tmp_path / "x.npz", x=rng.standard_t(4, (count, 4, 24, 24)).astype(np.float32))
    found = {}
    for method in ("output", "mse", None):
        spec = QuantizeSpec.model_validate({"size": 0.9, "activation_range": method, "float_islands": 0})
        job = prepare(tmp_path / "net.onnx", tmp_path / "x.npz", spec)
        assert job.samples.count == count
        grids = ActivationGrids(job, spec, Journal(), (job.samples,), batch_size=8)
        placement = place(job.model, job.layers, {layer.name: 8 for layer in job.layers}, 8, job.target, spec)
        found[method] = grids.of(placement)
    assert found["output"]["h"].high > 1.03 * found["mse"]["h"].high
    assert found["output"]["x"] != found["mse"]["x"]
    assert found[None]["h"] == found["output"]["h"]
    assert found[None]["x"] == found["mse" if count < 4 else "output"]["x"]


@pytest.mark.parametrize(
    ("function", "end"), [("Clip(h, low, high)", 6), ("Tanh(h)", 1), ("Sigmoid(h)", 1), ("Relu(h)", None)]
)
def test_no_grid_reaches_beyond_the_end_of_an_activation_function(
    tmp_path: Path, function: str, end: float | None
):
    rng = np.random.default_rng(0)
    save_with_weights(
        f"""net (float[n, 4, 8, 8] x) => (float[n, 8, 8, 8] y) <float low = {{0}}, float high = {{6}}>
        {{ h = Conv(x, v) r = {function} y = Conv(r, w) }}""",
        rng,
        tmp_path / "net.onnx",
    )
    reach = np.linspace(0.05, 1.6, 24).reshape(-1, 1, 1, 1)  # few samples come to the end
    np.savez(tmp_path / "x.npz", x=(reach * rng.uniform(-1, 1, (24, 4, 8, 8))).astype(np.float32))
    spec = QuantizeSpec.model_validate({"size": 0.9, "activation_range": "output", "float_islands": 0})
    job = prepare(tmp_path / "net.onnx", tmp_path / "x.npz", spec)
    grids = ActivationGrids(job, spec, Journal(), (job.samples,), batch_size=8)
    placement = place(job.model, job.layers, {layer.name: 8 for layer in job.layers}, 8, job.target, spec)
    high = grids.of(placement)["r"].high
    if end is None:
        assert high > 6.5
    else:
        assert 0.9 * end < high <= 1.0001 * end


@pytest.mark.parametrize(
    ("function", "method", "highest"),
    [("Sign(h)", None, 128 / 127), ("Sign(h)", "minmax", 256 / 255), ("Clip(t, low, high)", None, 6.0)],
)
def test_signs_lie_on_their_grid_unless_a_method_is_named_or_a_clip_ends_before(
    tmp_path: Path, function: str, method: str | None, highest: float
):
    rng = np.random.default_rng(0)
    save_with_weights(
        f"""net (float[n, 4, 8, 8] x) => (float[n, 8, 8, 8] y) <float low = {{0}}, float high = {{6}}>
        {{ h = Conv(x, v) t = Round(h) r = {function} y = Conv(r, w) }}""",
        rng,
        tmp_path / "net.onnx",
    )
    np.savez(tmp_path / "x.npz", x=(9 * rng.normal(size=(24, 4, 8, 8))).astype(np.float32))
    spec = QuantizeSpec.model_validate({"size": 0.9, "activation_range": method, "float_islands": 0})
    job = prepare(tmp_path / "net.onnx", tmp_path / "x.npz", spec)
    grids = ActivationGrids(job, spec, Journal(), (job.samples,), batch_size=8)
    placement = place(job.model, job.layers, {layer.name: 8 for layer in job.layers}, 8, job.target, spec)
    assert grids.of(placement)["r"].high == pytest.approx(highest, rel=1e-6)


@pytest.mark.parametrize(
    ("count", "affordable", "method", "used"),
    [
        (6, 100, "mse", 0),
        (20, 30, "output", 20),
        (80, 70, "output", 70),
        (80, 50, "mse", 0),
        (120, 200, "output", 96),
    ],
)
def test_samples_are_run_with_gradients_where_enough_of_them_are_worth_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, affordable: int, method: str, used: int
):
    rng = np.random.default_rng(0)
    save_with_weights(
        "net (float[n, 4, 8, 8] x) => (float[n, 8, 8, 8] y) { h = Conv(x, v) r = Relu(h) y = Conv(r, w) }",
        rng,
        tmp_path / "net.onnx",
    )
    np.savez(tmp_path / "x.npz", x=rng.standard_t(4, (count, 4, 8, 8)).astype(np.float32))
    found, samples = {}, []

    def seen(program, feeds, *others):
        feeds = list(feeds)
        samples.append(sum(size for _, size in feeds))
        return range_errors(program, feeds, *others)

    monkeypatch.setattr("quant_core.file_making.activation_grids.range_errors", seen)
    for asked in (method, None):
        spec = QuantizeSpec.model_validate({"size": 0.9, "activation_range": asked, "float_islands": 0})
        job = prepare(tmp_path / "net.onnx", tmp_path / "x.npz", spec)
        macs = sum(layer.macs for layer in job.layers)
        monkeypatch.setattr("quant_core.file_making.activation_grids._MACS", affordable * macs)
        placement = place(job.model, job.layers, {layer.name: 8 for layer in job.layers}, 8, job.target, spec)
        found[asked] = ActivationGrids(job, spec, Journal(), (job.samples,), batch_size=8).of(placement)
    assert found[None] == found[method]
    assert samples == [used] * 2 * (method == "output")


def test_however_large_a_network_is_some_samples_tell_of_its_outputs(
    found: tuple[ActivationGrids, dict[str, int]], monkeypatch: pytest.MonkeyPatch
):
    grids, bits = found
    monkeypatch.setattr("quant_core.file_making.activation_grids._MACS", 1)
    monkeypatch.setattr(
        "quant_core.file_making.activation_grids.range_errors",
        lambda _, feeds, *others: samples.append(sum(size for _, size in feeds)) or {},
    )
    job, samples = grids.job, []
    placement = place(job.model, job.layers, bits, 8, job.target, grids.spec)
    for method in ("minmax", "output"):
        ActivationGrids(
            job, grids.spec.model_copy(update={"activation_range": method}), Journal(), (job.samples,)
        ).of(placement)
    assert samples == [16]


def test_of_many_samples_those_that_reach_furthest_decide_where_ranges_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rng = np.random.default_rng(0)
    save_with_weights(
        "net (float[n, 4, 8, 8] x) => (float[n, 8, 8, 8] y) { h = Conv(x, v) r = Relu(h) y = Conv(r, w) }",
        rng,
        tmp_path / "net.onnx",
    )
    values = rng.standard_normal((150, 4, 8, 8)).astype(np.float32)
    values[77] *= 6  # an even choice of 96 leaves it out
    np.savez(tmp_path / "x.npz", x=values)
    spec = QuantizeSpec.model_validate({"size": 0.9, "activation_range": "output", "float_islands": 0})
    job = prepare(tmp_path / "net.onnx", tmp_path / "x.npz", spec)
    assert 77 not in np.arange(96) * 150 // 96
    placement = place(job.model, job.layers, {layer.name: 8 for layer in job.layers}, 8, job.target, spec)
    widest = abs(values).max()

    def reach() -> float:
        grid = ActivationGrids(job, spec, Journal(), (job.samples,), batch_size=8).of(placement)["x"]
        return grid.scale * (255 - grid.zero_point)

    assert reach() > 0.8 * widest
    monkeypatch.setattr("quant_core.file_making.activation_grids._LOOK", 1)
    assert reach() < 0.6 * widest
