"""Which axis counts samples, told by running the program; every case has an axis of the same size to mistake it for."""

import io
import warnings

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.artifacts import MODEL
from quant_core.executor import compile_model
from quant_core.ingest import normalise
from quant_core.pipeline import quantize
from quant_core.sensitivity import choose_loss, find_sample_axes
from quant_core.spec import QuantizeSpec

SAMPLES = 4
TOKENS = torch.randn(SAMPLES, SAMPLES, 5, generator=torch.Generator().manual_seed(0))


def axes(body, batch=None, output="float[A, B, C] y", given=TOKENS):
    """Axes of a graph whose input has as many steps as there are samples."""
    first = "N" if batch is None else batch
    constants = "int64[2] rows = {-1, 5}, int64[1] middle = {1}, int64[1] front = {0}, float[5, 2] w = "
    numbers = ", ".join(str((7 * i) % 11 / 10 - 0.5) for i in range(10))
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        net (float[{first}, T, 5] x) => ({output}) <{constants}{{{numbers}}}> {{ {body} }}"""
    )
    program, feeds = compile_model(model), {"x": given}
    with torch.no_grad():
        values = program.evaluate(feeds)
    return find_sample_axes(program, feeds, values, batch)


CASES = {
    "samples first": ("y = MatMul(x, w)", 0),
    "steps first": ("t = Transpose<perm = [1, 0, 2]>(x) y = MatMul(t, w)", 1),
    "samples last": ("t = Transpose<perm = [1, 2, 0]>(x) y = Relu(t)", 2),
    "rows of one sample after the other": ("r = Reshape(x, rows) y = MatMul(r, w)", 0),
    "rows of all samples in turns": (
        "t = Transpose<perm = [1, 0, 2]>(x) r = Reshape(t, rows) y = MatMul(r, w)",
        None,
    ),
    "mean over the samples": ("y = ReduceMean(x, front)", None),
}


@pytest.mark.parametrize("batch", [None, SAMPLES])
@pytest.mark.parametrize("case", CASES)
def test_axis_is_found_by_running(case, batch):
    body, expected = CASES[case]
    assert axes(body, batch) == {"y": expected}


@pytest.mark.parametrize("case", CASES)
def test_one_sample_of_any_number_tells_as_much_as_several(case):
    body, expected = CASES[case]
    assert axes(body, given=TOKENS[:1]) == {"y": expected}


def test_axis_that_a_single_sample_loses_is_found():
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        net (float[N, 1] x) => (float y) { s = Squeeze(x) y = Relu(s) }"""
    )
    program, feeds = compile_model(model), {"x": TOKENS[:2, 0, :1]}
    assert find_sample_axes(program, feeds, program.evaluate(feeds)) == {"y": 0}


def test_each_sample_against_each_has_no_axis_of_samples():
    body = "m = ReduceMean<keepdims = 0>(x, middle) t = Transpose(m) y = MatMul(m, t)"
    assert axes(body, None, "float[A, B] y") == {"y": None}


def test_one_sample_a_run():
    """A program for a single sample: an axis of size 1 holds it."""
    program = compile_model(
        ir.from_onnx_text(
            """<ir_version: 10, opset_import: ["" : 21]>
            net (float[1, 6, 5] x) => (float[6, 1, 5] y, float[1, 6, 5] z) {
                y = Transpose<perm = [1, 0, 2]>(x) z = Relu(x) }"""
        )
    )
    feeds = {"x": torch.randn(1, 6, 5)}
    assert find_sample_axes(program, feeds, program.evaluate(feeds), 1) == {"y": 1, "z": 0}


class Tagger(torch.nn.Module):
    """Reads [samples, steps, features]; gives a class for every step as [steps, samples, classes]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(6, 12, bidirectional=True)
        self.inner = torch.nn.Linear(24, 24)
        self.head = torch.nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(x.transpose(0, 1))
        return self.head(torch.relu(self.inner(states)))


def _tagger(path, *, dynamic):
    torch.manual_seed(0)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            Tagger().eval(),
            (torch.zeros(1 if not dynamic else 3, 8, 6),),
            buffer,
            dynamo=False,
            input_names=["x"],
            output_names=["tags"],
            dynamic_axes={"x": {0: "n"}, "tags": {1: "n"}} if dynamic else None,
            opset_version=18,
        )
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize("dynamic", [True, False])
def test_time_major_tagger(dynamic, tmp_path):
    """Eight steps, and the loss looks at eight samples; each sample's loss depends on that sample alone."""
    _tagger(tmp_path / "m.onnx", dynamic=dynamic)
    x = np.random.default_rng(0).standard_normal((32, 8, 6)).astype(np.float32)
    np.savez(tmp_path / "s.npz", x=x)
    spec = QuantizeSpec.model_validate({"size": 1.0, "bits": [8], "rounding": "nearest", "device": "cpu"})
    report = quantize(tmp_path / "m.onnx", tmp_path / "s.npz", spec, tmp_path / "out")
    assert report.loss.startswith("kl")
    assert (tmp_path / "out" / MODEL).exists()
    assert report.metrics.sqnr_db > 25
    model = normalise(ir.load(tmp_path / "m.onnx"))
    program = compile_model(model)
    count = 8 if dynamic else 1
    feeds = {"x": torch.from_numpy(x[:count])}
    values = program.evaluate(feeds)
    found = find_sample_axes(program, feeds, values, None if dynamic else 1)
    assert found == {"tags": 1}
    objective = choose_loss(model, values, count, found)
    changed = values["tags"].clone()
    changed[:, 0] += torch.arange(5.0)
    rows = [objective.rows({"tags": value}, count) for value in (changed, values["tags"])]
    losses = objective.per_sample(rows[0], rows[1], None)
    assert losses[0] > 0.1
    assert torch.allclose(losses[1:], torch.zeros(count - 1), atol=1e-6)
