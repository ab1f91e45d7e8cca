"""Models that onnxruntime's own tools quantized in part: what they did stays, the rest is quantized."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from quant_core.artifacts import MODEL
from quant_core.errors import AlreadyQuantizedError, ModelError
from quant_core.ingest import normalise, read_model
from quant_core.ingest.reading.quantized_parts import find_quantized_parts
from quant_core.pipeline import quantize
from quant_core.preparation import prepare
from quant_core.spec import QuantizeSpec

N = helper.make_node
KEEP = QuantizeSpec.model_validate({
    "float_islands": 0,  # so small a net runs in float
    "size": 1.0,
    "bits": [4, 8],
    "quantized_parts": "keep",
    "device": "cpu",
})  # fmt: skip
INTEGER_KERNELS = {"QLinearConv", "QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"}


def _model(nodes, inputs, weights, outputs=("y",)):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 10]) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _convolutions():
    generator = np.random.default_rng(0)

    def floats(*shape):
        fan_in = np.prod(shape[1:]) if len(shape) > 1 else 4
        return (generator.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)

    weights, nodes, last = {}, [], "x"
    for index, (fan_in, fan_out) in enumerate(((3, 8), (8, 8), (8, 16), (16, 16))):
        weights |= {f"w{index}": floats(fan_out, fan_in, 3, 3), f"b{index}": floats(fan_out)}
        nodes.append(N("Conv", [last, f"w{index}", f"b{index}"], [f"c{index}"], f"conv{index}", pads=[1] * 4))
        nodes.append(N("Relu", [f"c{index}"], [f"r{index}"], f"relu{index}"))
        last = f"r{index}"
    weights |= {"wf": floats(10, 16), "bf": floats(10)}
    nodes += [
        N("GlobalAveragePool", [last], ["p"], "pool"),
        N("Flatten", ["p"], ["f"], "flat"),
        N("Gemm", ["f", "wf", "bf"], ["y"], "fc", transB=1),
    ]
    return _model(nodes, {"x": (TensorProto.FLOAT, ["n", 3, 12, 12])}, weights)


def _encoder():
    generator = np.random.default_rng(0)
    weights = {name: generator.standard_normal((64, 64)) / 8 for name in ("wq", "wk", "wv", "wo")}
    weights |= {"emb": generator.standard_normal((200, 64)), "wc": generator.standard_normal((64, 10)) / 8}
    weights = {name: value.astype(np.float32) for name, value in weights.items()} | {"axis": np.array([1])}
    nodes = [N("Gather", ["emb", "ids"], ["h"], "table")]
    nodes += [N("MatMul", ["h", f"w{name}"], [name], f"mm_{name}") for name in "qkv"]
    nodes += [
        N("Transpose", ["k"], ["t"], "turn", perm=[0, 2, 1]),
        N("MatMul", ["q", "t"], ["s"], "scores"),
        N("Softmax", ["s"], ["p"], "share", axis=-1),
        N("MatMul", ["p", "v"], ["a"], "mix"),
        N("MatMul", ["a", "wo"], ["o"], "mm_o"),
        N("ReduceMean", ["o", "axis"], ["m"], "mean", keepdims=0),
        N("MatMul", ["m", "wc"], ["y"], "mm_c"),
    ]
    return _model(nodes, {"ids": (TensorProto.INT64, ["n", "t"])}, weights)


class _Reader(CalibrationDataReader):
    def __init__(self, feeds):
        self.left = iter([feeds])

    def get_next(self):
        return next(self.left, None)


def _qdq(source, target, feeds, form):
    quantize_static(
        source,
        target,
        _Reader(feeds),
        quant_format=QuantFormat.QDQ if form == "qdq" else QuantFormat.QOperator,
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
        nodes_to_quantize=["conv1", "conv2"],
    )


def _dynamic(source, target):
    quantize_dynamic(source, target, nodes_to_quantize=["mm_q", "mm_k"], per_channel=True)


def _blocks(source, target):
    quantizer = MatMulNBitsQuantizer(
        onnx.load(source), bits=4, block_size=32, is_symmetric=True, nodes_to_exclude=["mm_v", "mm_o", "mm_c"]
    )
    quantizer.process()
    onnx.save(quantizer.model.model, target)


@pytest.fixture(scope="module", params=["qdq", "qoperator", "dynamic", "block"])
def partly(request, tmp_path_factory):
    """A model of which two layers are quantized, samples, and the form."""
    folder, form = tmp_path_factory.mktemp(request.param), request.param
    generator = np.random.default_rng(1)
    images = form in {"qdq", "qoperator"}
    onnx.save(_convolutions() if images else _encoder(), folder / "float.onnx")
    feeds = (
        {"x": generator.standard_normal((32, 3, 12, 12)).astype(np.float32)}
        if images
        else {"ids": generator.integers(0, 200, (32, 9))}
    )
    np.savez(folder / "samples.npz", **feeds)
    source, target = folder / "float.onnx", folder / "partly.onnx"
    if images:
        _qdq(source, target, feeds, form)
    else:
        (_dynamic if form == "dynamic" else _blocks)(source, target)
    return target, folder / "samples.npz", form


@pytest.fixture(scope="module")
def kept(partly, tmp_path_factory):
    path, samples, _ = partly
    out = tmp_path_factory.mktemp("out")
    return quantize(path, samples, KEEP, out), onnx.load(out / MODEL)


def test_parts_are_named_with_form_weights_and_bits(partly):
    path, _, form = partly
    parts = [part for part in find_quantized_parts(onnx.load(path)) if part.form != "activations"]
    assert len(parts) == 2
    assert {part.form for part in parts} == {form}
    assert {part.bits for part in parts} == {4 if form == "block" else 8}
    stored = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    for part in parts:
        assert part.weights
        # No scale, zero point, or float tensor is taken for a weight.
        assert all(numpy_helper.to_array(stored[name]).dtype.itemsize in {1, 4} for name in part.weights)
        assert any(len(stored[name].dims) >= 2 for name in part.weights)


def test_by_default_they_are_refused_with_a_way_out(partly):
    path, samples, _ = partly
    with pytest.raises(AlreadyQuantizedError, match="--keep-quantized") as refused:
        prepare(path, samples, QuantizeSpec())
    assert str(find_quantized_parts(onnx.load(path))[0]) in str(refused.value)


def test_kept_parts_stay_to_the_byte(partly, kept):
    path, _, _ = partly
    before, (_, after) = onnx.load(path), kept
    stored = {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in after.graph.initializer}
    for part in find_quantized_parts(before):
        for name in part.weights:
            (tensor,) = (t for t in before.graph.initializer if t.name == name)
            assert stored[name] == numpy_helper.to_array(tensor).tobytes()
    kinds = {node.name: node.op_type for node in after.graph.node}
    for part in find_quantized_parts(before):
        for node in before.graph.node:
            if node.name in part.nodes:
                assert kinds[node.name] == node.op_type


def test_the_rest_is_quantized_and_the_report_names_what_was_kept(partly, kept):
    path, _, form = partly
    report, _ = kept
    parts = find_quantized_parts(onnx.load(path))
    assert len(report.layers) == (3 if form in {"qdq", "qoperator"} else 4)
    for layer in report.layers:
        assert layer.weight_bits in {4, 8}
        assert layer.op == "Gather" or layer.kernel in INTEGER_KERNELS or layer.name == "conv0"  # a stem
        assert layer.trace is not None
        assert layer.trace > 0  # gradients pass through the parts that were kept
    assert all(str(part) in report.warnings[0] for part in parts)
    assert [part.name for part in report.kept_parts] == [part.name for part in parts]
    assert "dB" in report.warnings[1]
    assert report.metrics.sqnr_db > 20
    assert abs(report.simulation.predicted_sqnr_db - report.simulation.measured_sqnr_db) < 1


def test_normalising_keeps_the_codes_of_packed_weights(tmp_path):
    """INT4 codes behind a Cast and a Transpose are not folded to int8, which would double them."""
    nodes = [
        N("Transpose", ["w"], ["t"], "turn", perm=[1, 0]),
        N("Cast", ["t"], ["c"], "widen", to=TensorProto.INT8),
        N("DequantizeLinear", ["c", "scale"], ["d"], "real"),
        N("MatMul", ["x", "d"], ["y"], "product"),
    ]
    model = _model(nodes, {"x": (TensorProto.FLOAT, ["n", 16])}, {"scale": np.float32(0.1)})
    model.opset_import[0].version, model.ir_version = 21, 10
    packed = np.random.default_rng(0).integers(0, 256, 10 * 16 // 2, np.uint8)
    model.graph.initializer.append(
        helper.make_tensor("w", TensorProto.INT4, (10, 16), packed.tobytes(), raw=True)
    )
    onnx.save(model, tmp_path / "m.onnx")
    source = read_model(tmp_path / "m.onnx", "keep")
    (part,) = source.quantized_parts
    assert (part.op, part.form, part.bits, part.weights) == ("MatMul", "qdq", 4, ("w",))
    assert set(part.nodes) == {"turn", "widen", "real", "product"}
    normal = normalise(source.model)
    assert [node.op_type for node in normal.graph] == ["Transpose", "Cast", "DequantizeLinear", "MatMul"]
    assert normal.graph.initializers["w"].const_value.tobytes() == packed.tobytes()


def test_nothing_is_left_to_quantize(tmp_path):
    onnx.save(_encoder(), tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "all.onnx")
    np.savez(tmp_path / "s.npz", ids=np.zeros((4, 9), np.int64))
    with pytest.raises(ModelError, match="nothing is left to quantize"):
        prepare(tmp_path / "all.onnx", tmp_path / "s.npz", KEEP)


def test_our_own_files_are_recognised(tmp_path):
    """Three-bit weights lie in two planes that a local function puts together."""
    onnx.save(_convolutions(), tmp_path / "float.onnx")
    images = np.random.default_rng(1).standard_normal((16, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "s.npz", x=images)
    spec = QuantizeSpec.model_validate(
        {
            "size": 1.0,
            "bits": [3],
            "exclude": ["conv0"],
            "rounding": "nearest",
            "device": "cpu",
            "float_islands": 0,
        }
    )
    quantize(tmp_path / "float.onnx", tmp_path / "s.npz", spec, tmp_path / "out")
    ours = tmp_path / "out" / MODEL
    parts = {part.name: part for part in find_quantized_parts(onnx.load(ours))}
    assert {parts[name].bits for name in ("conv1", "conv2", "conv3", "fc")} == {3}
    report = quantize(ours, tmp_path / "s.npz", KEEP, tmp_path / "again")
    assert [layer.name for layer in report.layers] == ["conv0"]
    again = {t.name: t.raw_data for t in onnx.load(tmp_path / "again" / MODEL).graph.initializer}
    for part in parts.values():
        for name in part.weights:
            (tensor,) = (t for t in onnx.load(ours).graph.initializer if t.name == name)
            assert again[name] == tensor.raw_data
