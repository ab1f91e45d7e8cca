"""Models in half and double precision through the whole pipeline."""

from __future__ import annotations

import io

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from quant_core.artifacts import MODEL
from quant_core.errors import ModelError
from quant_core.pipeline import quantize
from quant_core.preparation import prepare
from quant_core.spec import LayerRule, QuantizeSpec

SPEC = QuantizeSpec.model_validate(
    {
        "size": 1.0,
        "bits": [8],
        "rounding": "nearest",
        "device": "cpu",
        "effort": "fast",
        "float_islands": 0,
    }
)


class Net(torch.nn.Module):
    """Two convolutions and a head; `inside` casts its input to the type of its weights and back."""

    def __init__(self, *, inside: bool) -> None:
        super().__init__()
        self.inside = inside
        self.a = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(16)
        self.b = torch.nn.Conv2d(16, 32, 3, stride=2)
        self.head = torch.nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.to(self.head.weight.dtype) if self.inside else x
        y = self.head(torch.relu(self.b(torch.relu(self.norm(self.a(x))))).mean((2, 3)))
        return y.float() if self.inside else y


def _export(path, dtype, *, inside):
    torch.manual_seed(0)
    net = Net(inside=inside).eval().to(dtype)
    example = torch.zeros(2, 3, 12, 12, dtype=torch.float32 if inside else dtype)
    buffer = io.BytesIO()
    torch.onnx.export(
        net,
        (example,),
        buffer,
        dynamo=False,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        opset_version=18,
    )
    path.write_bytes(buffer.getvalue())
    return net


@pytest.fixture
def samples(tmp_path):
    images = np.random.default_rng(0).standard_normal((32, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "s.npz", x=images)
    return tmp_path / "s.npz"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("dtype", "inside"),
    [(torch.float16, False), (torch.float16, True), (torch.float64, False), (torch.bfloat16, True)],
    ids=["half", "half inside", "double", "bfloat16 inside"],
)
def test_quantized_end_to_end(dtype, inside, samples, tmp_path):
    path = tmp_path / "m.onnx"
    net = _export(path, dtype, inside=inside)
    report = quantize(path, samples, SPEC, tmp_path / "out")
    assert {layer.kernel for layer in report.layers} == {"Conv", "QLinearConv", "QGemm"}
    assert report.warnings[0].startswith(
        f"layers are stored in {str(dtype)[6:].replace('float64', 'double')}"
    )
    assert report.model.float_bytes == path.stat().st_size
    assert report.model.quantized_bytes < (0.75 if dtype != torch.float64 else 0.2) * report.model.float_bytes
    assert report.metrics.sqnr_db > 25
    before, after = onnx.load(path).graph, onnx.load(tmp_path / "out" / MODEL).graph
    assert list(after.input) == list(before.input)
    assert list(after.output) == list(before.output)
    session = onnxruntime.InferenceSession(tmp_path / "out" / MODEL)
    kind = {"tensor(float16)": np.float16, "tensor(double)": np.float64}.get(
        session.get_inputs()[0].type, np.float32
    )
    with np.load(samples) as arrays:
        feeds = arrays["x"].astype(kind)
    found = session.run(None, {"x": feeds})[0].astype(np.float64)
    with torch.no_grad():
        wanted = net.double()(torch.from_numpy(feeds.astype(np.float64)))
    noise = np.square(found - wanted.double().numpy()).sum() / np.square(wanted.double().numpy()).sum()
    assert noise < 10**-2.5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("dtype", "inside"), [(torch.float16, False), (torch.bfloat16, True)])
def test_what_stays_float_takes_16_bits(dtype, inside, samples, tmp_path):
    path = tmp_path / "m.onnx"
    _export(path, dtype, inside=inside)
    spec = SPEC.model_copy(update={"rules": (LayerRule(match="b.weight", exclude=True),)})
    report = quantize(path, samples, spec, tmp_path / "out")
    (layer,) = (layer for layer in report.layers if layer.weight == "b.weight")
    assert (layer.weight_bits, layer.kernel) == (32, "Conv")
    assert layer.bytes == pytest.approx(2 * 32 * 16 * 9, rel=0.02)
    assert report.model.predicted_bytes == pytest.approx(report.model.quantized_bytes, rel=0.02)
    exported = onnx.load(tmp_path / "out" / MODEL).graph
    stored = {tensor.name: tensor for tensor in exported.initializer}
    (before,) = (t for t in onnx.load(path).graph.initializer if t.name == "b.weight")
    assert stored["b.weight.half"].raw_data == before.raw_data
    assert max(t.ByteSize() for t in exported.initializer if t.data_type == TensorProto.FLOAT) < 1024


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_onnxruntime_cannot_run_is_compared_in_float32(samples, tmp_path):
    """It has no double convolution."""
    path = tmp_path / "m.onnx"
    _export(path, torch.float64, inside=False)
    job = prepare(path, samples, SPEC)
    assert any("no kernels" in note for note in job.notes)
    copy = job.reference.path
    assert copy != path
    assert copy.exists()
    del job
    assert not copy.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_bfloat16_inputs_are_refused_by_name(samples, tmp_path):
    _export(tmp_path / "m.onnx", torch.bfloat16, inside=False)
    with pytest.raises(ModelError, match=r"'x' is bfloat16.*float32 inputs"):
        prepare(tmp_path / "m.onnx", samples, SPEC)


def test_weights_that_are_only_stored_in_half_precision(samples, tmp_path):
    """Each behind a Cast to float32, as tools write that only compress."""
    generator = np.random.default_rng(0)
    a, b = (
        (generator.standard_normal(shape) / 5).astype(np.float16) for shape in ((48, 3, 3, 3), (32, 48, 3, 3))
    )
    nodes = [
        helper.make_node("Cast", ["a"], ["wa"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["b"], ["wb"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "wa"], ["h"], "one"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "wb"], ["y"], "two"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 32, 8, 8])],
        [numpy_helper.from_array(a, "a"), numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    spec = SPEC.model_copy(update={"rules": (LayerRule(match="two", exclude=True),)})
    report = quantize(tmp_path / "m.onnx", samples, spec, tmp_path / "out")
    assert [layer.kernel for layer in report.layers] == ["QLinearConv", "Conv"]
    assert report.layers[1].bytes == pytest.approx(b.nbytes, rel=0.02)
    assert report.model.quantized_bytes < (tmp_path / "m.onnx").stat().st_size + 1000
