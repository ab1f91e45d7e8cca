"""Graphs of every shape of interface, prepared or quantized, with onnxruntime as the judge."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.artifacts import MODEL
from quant_core.errors import ModelError
from quant_core.pipeline import quantize, validate
from quant_core.preparation import prepare
from quant_core.spec import QuantizeSpec

N = helper.make_node
FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
GENERATOR = np.random.default_rng(0)
SPEC = QuantizeSpec.model_validate({"size": "1MB", "bits": [8], "rounding": "nearest", "device": "cpu"})


def floats(*shape):
    return (GENERATOR.standard_normal(shape) / 4).astype(np.float32)


def save(folder, nodes, inputs, outputs, weights, samples, defaults=()):
    """Write a model and its samples; inputs and outputs are name -> (type, shape)."""
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    infos += [
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in stored if t.name in defaults
    ]
    results = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()]
    graph = helper.make_graph(nodes, "g", infos, results, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "s.npz", **samples)
    return folder / "m.onnx", folder / "s.npz"


def agree(path, data, folder, least_db=25.0, spec=SPEC):
    """Quantize, run both files on all samples and compare every float output."""
    report = quantize(path, data, spec, folder / "out")
    with np.load(data) as archive:
        arrays = dict(archive)
    before, after = (
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        for file in (path, folder / "out" / MODEL)
    )
    assert [i.name for i in after.get_inputs()] == [i.name for i in before.get_inputs()]
    assert [i.type for i in after.get_inputs()] == [i.type for i in before.get_inputs()]
    assert [o.name for o in after.get_outputs()] == [o.name for o in before.get_outputs()]
    feeds = {i.name: arrays[i.name] for i in before.get_inputs()}
    for wanted, found in zip(before.run(None, feeds), after.run(None, feeds), strict=True):
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        if wanted.dtype.kind == "f" and wanted.size:
            noise = np.square(wanted - found).sum() / np.square(wanted).sum()
            assert noise < 10 ** (-least_db / 10)
    return report


def test_channels_last(tmp_path):
    """As exporters from channels-last frameworks write it, with transposes around the convolutions."""
    nodes = [
        N("Transpose", ["x"], ["a"], "in", perm=[0, 3, 1, 2]),
        N("Conv", ["a", "w"], ["b"], "conv", pads=[1] * 4),
        N("Relu", ["b"], ["c"], "relu"),
        N("Transpose", ["c"], ["d"], "out", perm=[0, 2, 3, 1]),
        N("Add", ["d", "shift"], ["e"], "channelwise"),
        N("Transpose", ["e"], ["f"], "in2", perm=[0, 3, 1, 2]),
        N("Conv", ["f", "v"], ["g"], "conv2"),
        N("Transpose", ["g"], ["y"], "out2", perm=[0, 2, 3, 1]),
    ]
    weights = {"w": floats(8, 3, 3, 3), "shift": floats(8), "v": floats(4, 8, 1, 1)}
    inputs, outputs = {"x": (FLOAT, ["n", 10, 10, 3])}, {"y": (FLOAT, ["n", 10, 10, 4])}
    path, data = save(tmp_path, nodes, inputs, outputs, weights, {"x": floats(24, 10, 10, 3)})
    report = agree(path, data, tmp_path, spec=SPEC.model_copy(update={"float_islands": 0.0}))
    assert [layer.kernel for layer in report.layers] == ["Conv", "QLinearConv"]
    assert report.layers[0].macs == 10 * 10 * 8 * 27


def test_several_inputs_and_outputs(tmp_path):
    """An image and words in; scores, a vector, their sum over the batch and the best class out."""
    nodes = [
        N("Conv", ["image", "w"], ["a"], "conv"),
        N("GlobalAveragePool", ["a"], ["b"], "pool"),
        N("Flatten", ["b"], ["seen"], "flat"),
        N("Gather", ["table", "words"], ["c"], "look"),
        N("ReduceMean", ["c", "one"], ["read"], "mean", keepdims=0),
        N("Concat", ["seen", "read"], ["both"], "join", axis=1),
        N("Gemm", ["both", "head", "bias"], ["scores"], "fc"),
        N("Tanh", ["both"], ["vector"], "squash"),
        N("ReduceSum", ["both", "zero"], ["total"], "sum", keepdims=0),
        N("ArgMax", ["scores"], ["best"], "pick", axis=1, keepdims=0),
    ]
    weights = {"w": floats(8, 3, 3, 3), "table": floats(50, 8), "head": floats(16, 10), "bias": floats(10)}
    weights |= {"one": np.array([1]), "zero": np.array([0])}
    inputs = {"image": (FLOAT, ["n", 3, 8, 8]), "words": (INT64, ["n", "t"])}
    outputs = {
        "scores": (FLOAT, ["n", 10]),
        "vector": (FLOAT, ["n", 16]),
        "total": (FLOAT, [16]),
        "best": (INT64, ["n"]),
    }
    samples = {"image": floats(24, 3, 8, 8), "words": GENERATOR.integers(0, 50, (24, 5))}
    path, data = save(tmp_path, nodes, inputs, outputs, weights, samples)
    report = agree(path, data, tmp_path, least_db=20)
    assert "'scores'" in report.loss
    assert "'vector'" in report.loss
    assert "'total'" not in report.loss  # no axis ties it to the samples
    assert {layer.op for layer in report.layers} == {"Conv", "Gather", "Gemm"}


def test_inputs_with_a_default_become_constants_and_are_named(tmp_path):
    nodes = [
        N("MatMul", ["x", "w"], ["a"], "product"),
        N("Mul", ["a", "temperature"], ["b"], "sharpen"),
        N("MatMul", ["b", "v"], ["y"], "head"),
    ]
    weights = {"w": floats(16, 16), "v": floats(16, 4), "temperature": np.float32(2)}
    inputs, outputs = {"x": (FLOAT, ["n", 16])}, {"y": (FLOAT, ["n", 4])}
    path, data = save(
        tmp_path, nodes, inputs, outputs, weights, {"x": floats(24, 16)}, defaults=("temperature",)
    )
    report = agree(path, data, tmp_path)
    assert any("'temperature'" in warning and "default" in warning for warning in report.warnings)
    assert {layer.name for layer in report.layers} == {"product", "head"}


def test_weights_listed_as_inputs_by_old_files_are_plain_weights(tmp_path):
    """Version 3 of the format demanded it."""
    weights, shapes = {"w": floats(16, 4)}, ({"x": (FLOAT, ["n", 16])}, {"y": (FLOAT, ["n", 4])})
    nodes = [N("MatMul", ["x", "w"], ["y"], "product")]
    path, data = save(tmp_path, nodes, *shapes, weights, {"x": floats(24, 16)}, defaults=("w",))
    model = onnx.load(path)
    model.ir_version, model.opset_import[0].version = 3, 8
    onnx.save(model, path)
    job = prepare(path, data, SPEC)
    assert [layer.weight for layer in job.layers] == ["w"]
    assert job.notes == ()


def test_empty_tensors(tmp_path):
    """A cache that holds nothing yet, and a constant without elements."""
    nodes = [
        N("MatMul", ["x", "w"], ["a"], "product"),
        N("Concat", ["past", "a"], ["b"], "append", axis=1),
        N("Concat", ["b", "nothing"], ["c"], "join", axis=2),
        N("MatMul", ["c", "v"], ["y"], "head"),
    ]
    weights = {"w": floats(16, 16), "v": floats(16, 4), "nothing": np.zeros((1, 5, 0), np.float32)}
    inputs = {"x": (FLOAT, [1, 5, 16]), "past": (FLOAT, [1, "p", 16])}
    samples = {"x": floats(24, 5, 16), "past": np.zeros((24, 0, 16), np.float32)}
    path, data = save(tmp_path, nodes, inputs, {"y": (FLOAT, [1, 5, 4])}, weights, samples)
    job = prepare(path, data, SPEC)
    assert {layer.name for layer in job.layers} == {"product", "head"}
    report = quantize(path, data, SPEC, tmp_path / "out")
    assert report.metrics.sqnr_db > 25


@pytest.mark.parametrize("kind", [UINT8, INT64])
def test_integer_inputs(kind, tmp_path):
    """Raw bytes of an image, scaled inside of the graph; or whole numbers that are looked up and measured."""
    if kind == UINT8:
        nodes = [
            N("Cast", ["x"], ["a"], "real", to=FLOAT),
            N("Div", ["a", "full"], ["b"], "scale"),
            N("Conv", ["b", "w"], ["c"], "conv"),
            N("ReduceMean", ["c", "axes"], ["y"], "pool", keepdims=0),
        ]
        weights = {"full": np.float32(255), "w": floats(4, 3, 3, 3), "axes": np.array([2, 3])}
        samples = {"x": GENERATOR.integers(0, 256, (24, 3, 8, 8)).astype(np.uint8)}
        shape = ["n", 3, 8, 8]
    else:
        nodes = [
            N("Gather", ["table", "x"], ["a"], "look"),
            N("MatMul", ["a", "v"], ["b"], "product"),
            N("ReduceMean", ["b", "axes"], ["y"], "pool", keepdims=0),
        ]
        weights = {"table": floats(30, 16), "v": floats(16, 4), "axes": np.array([1])}
        samples = {"x": GENERATOR.integers(0, 30, (24, 6))}
        shape = ["n", 6]
    path, data = save(tmp_path, nodes, {"x": (kind, shape)}, {"y": (FLOAT, ["n", 4])}, weights, samples)
    agree(path, data, tmp_path)


@pytest.mark.parametrize(
    "declared", [["n", 5], [3, 4], ["n", 4, 1]], ids=["another size", "a fixed batch", "another rank"]
)
def test_outputs_that_are_declared_otherwise_than_they_are(tmp_path, declared):
    """onnxruntime runs them with a warning; the file that comes out is one that every checker takes."""
    nodes = [N("MatMul", ["x", "w"], ["h"], "product"), N("Gemm", ["h", "v"], ["y"], "head")]
    shapes = {"x": (FLOAT, ["n", 16])}, {"y": (FLOAT, ["n", 4])}
    weights = {"w": floats(16, 16), "v": floats(16, 4)}
    path, data = save(tmp_path, nodes, *shapes, weights, {"x": floats(24, 16)})
    model = onnx.load(path)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", FLOAT, declared))
    onnx.save(model, path)
    report = agree(path, data, tmp_path)
    assert any("'y' is declared as [" in note and "a run gave [4, 4]" in note for note in report.warnings)
    dims = onnx.load(tmp_path / "out" / MODEL).graph.output[0].type.tensor_type.shape.dim
    assert len(dims) == 2
    assert not {size.dim_value for size in dims} & {3, 5}


def test_an_output_that_no_layer_reaches(tmp_path):
    """Such as a mask that is handed on beside the scores."""
    nodes = [
        N("MatMul", ["x", "w"], ["h"], "product"),
        N("MatMul", ["h", "v"], ["y"], "head"),
        N("Sigmoid", ["x"], ["z"], "other"),
    ]
    outputs = {"z": (FLOAT, ["n", 16]), "y": (FLOAT, ["n", 4])}
    weights = {"w": floats(16, 16), "v": floats(16, 4)}
    path, data = save(tmp_path, nodes, {"x": (FLOAT, ["n", 16])}, outputs, weights, {"x": floats(24, 16)})
    spec = QuantizeSpec.model_validate({"size": "1MB", "sensitivity": "gauss_newton", "device": "cpu"})
    report = quantize(path, data, spec, tmp_path / "out")
    assert {layer.name for layer in report.layers} == {"product", "head"}


def test_an_output_beside_integer_kernels_is_no_rounded_one(tmp_path):
    nodes = [N("Conv", ["x", "w"], ["a"]), N("Sin", ["a"], ["b"]), N("Conv", ["b", "v"], ["y"])]
    nodes.append(N("Identity", ["x"], ["same"]))
    path, data = save(
        tmp_path,
        nodes,
        {"x": (FLOAT, ["n", 3, 8, 8])},
        {"y": (FLOAT, ["n", 12, 4, 4]), "b": (FLOAT, ["n", 16, 6, 6]), "same": (FLOAT, ["n", 3, 8, 8])},
        {"w": floats(16, 3, 3, 3), "v": floats(12, 16, 3, 3)},
        {"x": floats(12, 3, 8, 8)},
    )
    agree(path, data, tmp_path)
    x = np.load(data)["x"]
    session = onnxruntime.InferenceSession(tmp_path / "out" / MODEL, providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(["same"], {"x": x})[0], x)


def test_rows_that_a_constant_picks(tmp_path):
    """Positions of a transformer with a fixed length: the layer's other operand is no value of a run."""
    nodes = [
        N("Gather", ["table", "rows"], ["p"], "positions"),
        N("Add", ["x", "p"], ["h"], "sum"),
        N("MatMul", ["h", "w"], ["y"], "product"),
    ]
    weights = {"table": floats(100, 64), "rows": np.arange(40), "w": floats(64, 8)}
    inputs, outputs = {"x": (FLOAT, ["n", 40, 64])}, {"y": (FLOAT, ["n", 40, 8])}
    path, data = save(tmp_path, nodes, inputs, outputs, weights, {"x": floats(24, 40, 64)})
    report = agree(path, data, tmp_path)
    assert {layer.name for layer in report.layers} == {"positions", "product"}


def test_outputs_that_no_floats_lead_to_are_refused_before_there_is_a_job(tmp_path):
    nodes = [
        N("MatMul", ["x", "w"], ["h"], "product"),
        N("Shape", ["h"], ["k"]),
        N("Add", ["k", "one"], ["y"]),
    ]
    shapes = {"x": (FLOAT, ["n", 16])}, {"y": (INT64, [2])}
    path, data = save(
        tmp_path, nodes, *shapes, {"w": floats(16, 4), "one": np.array(1)}, {"x": floats(24, 16)}
    )
    with pytest.raises(ModelError, match="no output holds floats") as told:
        validate(path, data, SPEC)
    assert "logits, scores, boxes" in told.value.remedy


@pytest.mark.parametrize(("copies", "warned"), [(1, False), (8, True)])
def test_samples_that_are_copies_of_each_other_are_warned_of(copies, warned, tmp_path):
    path, data = save(
        tmp_path,
        [N("MatMul", ["x", "w"], ["y"])],
        {"x": (FLOAT, ["n", 8])},
        {"y": (FLOAT, ["n", 4])},
        {"w": floats(8, 4)},
        {"x": np.repeat(floats(16 // copies, 8), copies, axis=0)},
    )
    notes = prepare(path, data, SPEC).notes
    assert any(note.startswith("Only 2 of the 16 samples differ") for note in notes) == warned
