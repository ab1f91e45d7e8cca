"""Models that give only what they chose are measured by what they chose it from, and keep their outputs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.artifacts import MODEL
from quant_core.debugging import debug
from quant_core.evaluation import evaluate
from quant_core.export.storage.model_file import file_bytes
from quant_core.ingest import read_model
from quant_core.pipeline import quantize
from quant_core.preparation.scores import with_scores
from quant_core.spec import QuantizeSpec

N = helper.make_node
FLOAT, INT64, BOOL, FLOAT16 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT16
SPEC = QuantizeSpec.model_validate({"size": "1MB", "bits": [4, 8], "device": "cpu"})
WIDTH, CLASSES, SAMPLES = 16, 5, 64


@pytest.fixture
def save(tmp_path):
    """Write two products with a Relu between and the nodes that follow, in one element type, and samples."""
    random = np.random.default_rng(0)
    weights = {
        "a": random.standard_normal((WIDTH, WIDTH)) / 4,
        "b": random.standard_normal((WIDTH, CLASSES)) / 4,
        "most": np.array(0.2),
        "k": np.array([2], np.int64),
    }

    def write(nodes, outputs, kind=FLOAT):
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        nodes = [
            N("MatMul", ["x", "a"], ["h"], "first"),
            N("Relu", ["h"], ["r"], "relu"),
            N("MatMul", ["r", "b"], ["scores"], "second"),
            *nodes,
        ]
        tensors = [
            numpy_helper.from_array(value if name == "k" else value.astype(dtype), name)
            for name, value in weights.items()
        ]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", kind, ["n", WIDTH])],
            [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
            tensors,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, tmp_path / "m.onnx")
        x = random.standard_normal((SAMPLES, WIDTH)).astype(dtype)
        session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
        first = session.run(None, {"x": x})[0]
        labels = {"labels": first} if first.shape == (SAMPLES,) else {}
        np.savez(tmp_path / "s.npz", x=x, **labels)
        return tmp_path / "m.onnx", tmp_path / "s.npz", x, first

    return write


@pytest.mark.parametrize("kind", [FLOAT, FLOAT16], ids=["float32", "float16"])
def test_class_numbers_are_measured_by_the_scores_they_are_chosen_from(save, kind, tmp_path):
    nodes = [N("ArgMax", ["scores"], ["wide"], axis=1, keepdims=0), N("Cast", ["wide"], ["best"], to=INT64)]
    path, data, x, wanted = save(nodes, [("best", INT64, ["n"])], kind)
    out = tmp_path / "out"
    report = quantize(path, data, SPEC, out)
    assert report.metrics.sqnr_db > 20
    assert any("losses are those of 'scores'" in warning for warning in report.warnings)
    assert report.model.quantized_bytes == file_bytes(out / MODEL)
    assert report.model.ratio == file_bytes(out / MODEL) / path.stat().st_size
    onnx.checker.check_model(onnx.load(out / MODEL), full_check=True)
    session = onnxruntime.InferenceSession(out / MODEL, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["best"]
    found = session.run(None, {"x": x})[0]
    assert found.dtype == wanted.dtype
    assert (found == wanted).mean() > 0.8
    assert evaluate(out / MODEL, data).value == pytest.approx((found == wanted).mean())


def test_a_file_that_gives_class_numbers_is_debugged_by_its_scores(save, tmp_path):
    nodes = [N("ArgMax", ["scores"], ["best"], axis=1, keepdims=0)]
    path, data, *_ = save(nodes, [("best", INT64, ["n"])])
    quantize(path, data, SPEC, tmp_path / "out")
    other = tmp_path / "other.onnx"
    other.write_bytes((tmp_path / "out" / MODEL).read_bytes())
    for quantized in (tmp_path / "out", other):
        found = debug(path, quantized, data, worst=1)
        assert {layer.name for layer in found.layers} == {"first", "second"}
        assert found.output == "scores"
        assert found.output_sqnr_db > 20


@pytest.mark.parametrize(
    ("nodes", "outputs", "found"),
    [
        ([N("Greater", ["scores", "most"], ["y"])], [("y", BOOL, ["n", CLASSES])], ["scores"]),
        (
            [N("TopK", ["scores", "k"], ["values", "y"]), N("ArgMin", ["r"], ["z"], axis=1, keepdims=0)],
            [("y", INT64, ["n", 2]), ("z", INT64, ["n"])],
            ["scores", "r"],
        ),
        (
            [N("Softmax", ["scores"], ["p"]), N("Greater", ["p", "most"], ["m"]), N("NonZero", ["m"], ["y"])],
            [("y", INT64, [2, "found"])],
            ["p"],
        ),
        ([N("Shape", ["scores"], ["y"])], [("y", INT64, [2])], []),
        ([N("ArgMax", ["x"], ["y"], axis=1, keepdims=0)], [("y", INT64, ["n"])], []),
        (
            [N("ArgMax", ["r"], ["y"], axis=1, keepdims=0)],
            [("y", INT64, ["n"]), ("scores", FLOAT, ["n", CLASSES])],
            [],
        ),
    ],
    ids=["threshold", "several", "nearest", "sizes", "input", "has-floats"],
)
def test_the_nearest_floats_are_taken_where_no_output_holds_any(nodes, outputs, found, save):
    path, *_ = save(nodes, outputs)
    source = read_model(path)
    measured, scores = with_scores(source)
    assert ([] if scores is None else list(scores.names)) == found
    assert (measured is source) == (not found)
    if found:
        assert [output.name for output in source.model.graph.outputs] == [name for name, *_ in outputs]
        before, after = (onnxruntime.InferenceSession(file) for file in (path, measured.path))
        x = np.ones((3, WIDTH), np.float32)
        for one, other in zip(before.run(None, {"x": x}), after.run(None, {"x": x}), strict=False):
            np.testing.assert_array_equal(one, other)


def test_scores_inside_of_a_local_function_are_found(save):
    path, *_ = save([N("ArgMax", ["scores"], ["y"], axis=1, keepdims=0)], [("y", INT64, ["n"])])
    model = onnx.load(path)
    body = list(model.graph.node)
    opsets = list(model.opset_import)
    model.functions.append(helper.make_function("own", "Net", ["x", "a", "b"], ["y"], body, opsets))
    del model.graph.node[:]
    model.graph.node.append(N("Net", ["x", "a", "b"], ["y"], "net", domain="own"))
    model.opset_import.append(helper.make_opsetid("own", 1))
    onnx.save(model, path)
    measured, scores = with_scores(read_model(path))
    assert scores is not None
    assert [value.shape[1] for value in measured.model.graph.outputs if value.name in scores.names] == [
        CLASSES
    ]
