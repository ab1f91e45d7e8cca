"""Jobs whose layers give their channels two widths: chosen where that pays, told, taken up again."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from quant_core.allocation.plan_problem import BYTES
from quant_core.checkpoints import Checkpoints, find_rounded, keep_rounded
from quant_core.codes import NarrowChannels, QuantizedWeight
from quant_core.file_making.channel_mixing import NAME, _halves
from quant_core.file_making.file_maker import FileMaker
from quant_core.pipeline import quantize
from quant_core.report.headline import mean_bits
from quant_core.sensitivity import Batch
from quant_core.spec import QuantizeSpec
from tests.quant_core.export.networks import HEADER, parse

LIMIT = 4.0
SPEC = {"bits": [2, 3, 4, 5, 8], "effective_bits": LIMIT, "loss": "squared_error"}
SHAPES = {"stem": (64, 8, 3, 3), "middle": (64, 64, 3, 3), "last": (32, 64, 1, 1)}
TEXT = """g (float[n,8,8,8] x) => (float[n,32,8,8] y) {
    a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, stem)
    r = Relu(a)
    b = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r, middle)
    q = Relu(b)
    y = Conv<kernel_shape=[1,1]>(q, last)
}"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Channels of very different size, as batch normalization leaves them."""
    folder, rng = tmp_path_factory.mktemp("inputs"), np.random.default_rng(0)
    proto = parse(HEADER + TEXT, **SHAPES)
    for tensor in proto.graph.initializer:
        shape = SHAPES[tensor.name]
        sizes = rng.lognormal(0, 1.5, shape[0])[:, None, None, None] / np.sqrt(np.prod(shape[1:]))
        values = (sizes * rng.standard_normal(shape)).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, folder / "net.onnx")
    np.savez(folder / "samples.npz", x=rng.standard_normal((48, 8, 8, 8)).astype(np.float32))
    return folder / "net.onnx", folder / "samples.npz"


@pytest.fixture(scope="module")
def jobs(inputs, tmp_path_factory):
    found = {}
    for mixed in (True, False):
        out = tmp_path_factory.mktemp(f"mixed-{mixed}")
        found[mixed] = out, quantize(*inputs, QuantizeSpec(**SPEC, mix_channels=mixed), out)
    return found


def test_channels_that_lose_most_get_more_bits(jobs):
    (_, mixed), (_, plain) = jobs[True], jobs[False]
    kept = [layer for layer in mixed.layers if layer.narrow_bits is not None]
    assert kept
    assert all(0 < layer.narrow_share < 1 and layer.narrow_bits < layer.weight_bits for layer in kept)
    assert not any(layer.narrow_bits for layer in plain.layers)
    assert mixed.metrics.sqnr_db > plain.metrics.sqnr_db + 1
    assert mixed.model.quantized_bytes <= plain.model.quantized_bytes
    chosen = next(trial for trial in mixed.trials if trial.chosen)
    assert chosen.name == NAME
    assert chosen.predicted_loss == pytest.approx(mixed.plan.predicted_loss)


def test_costs_and_words_are_those_of_the_file(jobs):
    out, report = jobs[True]
    assert report.plan.costs["effective_bits"] <= LIMIT
    assert mean_bits(report) == pytest.approx(report.plan.costs["effective_bits"], rel=1e-6)
    assert report.model.predicted_bytes == pytest.approx(report.model.quantized_bytes, abs=150)
    page = (out / "report.html").read_text()
    for layer, planned in zip(report.layers, report.plan.layers, strict=True):
        if layer.narrow_bits is not None:
            assert (
                f"of {SHAPES[layer.weight][0]} channels, {layer.narrow_bits} for the others" in planned.reason
            )
            assert layer.sensitivity == planned.expected_loss
            assert f"{layer.narrow_bits} for {100 * layer.narrow_share:.0f}" in page


def test_no_layer_leaves_its_integer_kernel(inputs, tmp_path):
    """Codes of 8 bits with a zero point have none."""
    report = quantize(
        *inputs, QuantizeSpec.model_validate(SPEC | {"bits": [2, 4, 8], "symmetric": False}), tmp_path
    )
    assert {layer.kernel for layer in report.layers} == {"QLinearConv"}


def test_a_job_that_was_cut_off_gives_the_same_file(inputs, jobs, tmp_path):
    spec = QuantizeSpec(**SPEC)
    first, again = tmp_path / "first", tmp_path / "again"
    quantize(*inputs, spec, first, checkpoints=Checkpoints(tmp_path / "kept"))
    quantize(*inputs, spec, again, checkpoints=Checkpoints(tmp_path / "kept"))
    expected = (jobs[True][0] / "model.onnx").read_bytes()
    assert (first / "model.onnx").read_bytes() == expected
    assert (again / "model.onnx").read_bytes() == expected


def test_what_is_measured_around_the_result_of_a_band_is_no_larger(inputs, tmp_path, monkeypatch):
    limits, settle = [], FileMaker.settle

    def settle_seen(maker, within, **options):
        limits.append(within[BYTES])
        return settle(maker, within, **options)

    monkeypatch.setattr(FileMaker, "settle", settle_seen)
    asked = {"max_drop": "sqnr>=16dB", "bits": [2, 3, 4, 5, 8], "loss": "squared_error", "held_back": 0.5}
    report = quantize(*inputs, QuantizeSpec.model_validate(asked), tmp_path)
    assert any(layer.narrow_bits for layer in report.layers)
    assert limits[-1] <= 1.02 * report.band.evaluations[report.band.chosen].bytes


@pytest.mark.parametrize(
    "more", [{"target": "portable"}, {"granularity": "tensor"}, {"ties": [["*"]]}, {"effort": "fast"}]
)
def test_others_keep_one_width(inputs, more, tmp_path):
    report = quantize(*inputs, QuantizeSpec.model_validate(SPEC | more), tmp_path)
    assert not any(layer.narrow_bits for layer in report.layers)


def test_narrow_channels_are_kept_for_another_attempt(tmp_path):
    weight = QuantizedWeight(np.ones((4, 2), np.int8), np.ones(4, np.float32), 0, 5)
    few = replace(weight, narrow=NarrowChannels(3, np.array([True, False, True, True])))
    kept = Checkpoints(tmp_path)
    keep_rounded(kept, {"plain": {5: weight}, "mixed": {5: few}})
    found = find_rounded(kept)
    assert found["plain"][5].narrow is None
    assert found["mixed"][5].narrow.bits == 3
    np.testing.assert_array_equal(found["mixed"][5].narrow.channels, few.narrow.channels)


@pytest.mark.parametrize(
    ("macs", "count", "fixed", "sizes"),
    [
        (1, 100, None, (16, 16)),
        (10**8, 100, None, (10, 10)),
        (10**12, 100, None, (2, 2)),
        (1, 5, None, (2, 2)),
        (1, 1, None, None),
        (1, 100, 4, None),
    ],
    ids=[
        "many",
        "as many as are worth their time",
        "the fewest",
        "no more",
        "too few",
        "their number is fixed",
    ],
)
def test_channels_are_told_apart_on_two_halves_of_the_first_samples(macs, count, fixed, sizes):
    batch = Batch({"x": torch.arange(count)}, None, count)
    job = SimpleNamespace(layers=[SimpleNamespace(macs=macs)], samples=SimpleNamespace(batch=fixed))
    halves = _halves([batch], job)
    assert (halves and tuple(half.size for half in halves)) == sizes
    if halves:
        seen = torch.cat([half.feeds["x"] for half in halves])
        assert seen.tolist() == list(range(sum(sizes)))
