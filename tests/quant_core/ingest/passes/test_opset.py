"""Operators whose form or meaning changed between opsets give the same outputs after raising them.

The reference is onnxruntime running the old model as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnxscript.version_converter import ConvertVersionPass

from quant_core.errors import ModelError
from quant_core.ingest import normalise, read_model
from quant_core.ingest.passes.opset import RaiseOpset

N = helper.make_node
RNG = np.random.default_rng(0)


def _floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


X = _floats(2, 3, 8, 8)
POSITIVE = np.abs(X) + 0.1
I64 = {"i": TensorProto.INT64}

# name, opsets, nodes, inputs, initializers, outputs
Case = tuple[str, tuple[int, ...], list[onnx.NodeProto], dict, dict, tuple[str, ...]]


def _cases() -> Iterator[Case]:
    def one(name, opsets, op, extra=None, x=X, outputs=("y",), **attributes):
        extra = {key: np.asarray(value) for key, value in (extra or {}).items()}
        return name, opsets, [N(op, ["x", *extra], [*outputs], **attributes)], {"x": x}, extra, outputs

    norm = {"s": _floats(3), "b": _floats(3), "m": _floats(3), "v": np.abs(_floats(3)) + 0.5}
    yield one("batch norm", (7, 9, 14), "BatchNormalization", norm)
    yield one("dropout", (7, 10), "Dropout", ratio=0.3)
    for mode in ("nearest", "linear"):
        for scale in (1.5, 2.0, 2.7):
            scales = np.array([1, 1, scale, scale], np.float32)
            yield one(f"upsample {mode} {scale}", (7, 8), "Upsample", scales=list(scales), mode=mode)
            yield one(f"upsample {mode} {scale}", (9,), "Upsample", {"k": scales}, mode=mode)
        for scale in (0.33, 0.5, 0.7, 2.0, 2.7):
            scales = np.array([1, 1, scale, scale], np.float32)
            yield one(f"resize {mode} {scale}", (10,), "Resize", {"k": scales}, mode=mode)
    yield one("slice", (7, 9), "Slice", axes=[2, 3], starts=[1, 0], ends=[5, -1])
    yield one("slice inputs", (10, 11), "Slice", {"st": [1], "en": [5], "ax": [2]})
    for op in ("Softmax", "LogSoftmax"):
        for axis in (1, 2, 3):
            yield one(f"{op} {axis}", (7, 11, 12, 13), op, axis=axis)
    yield one("softmax default", (12,), "Softmax")
    yield one("squeeze", (7, 12), "Squeeze", x=_floats(2, 1, 5), axes=[1])
    yield one("unsqueeze", (7, 12), "Unsqueeze", x=_floats(2, 5), axes=[0, 2])
    yield one("clip", (7, 10), "Clip", min=-0.5, max=0.5)
    yield one("pad", (7, 10), "Pad", pads=[0, 0, 1, 1, 0, 0, 2, 2], value=1.5)
    yield one("pad reflect", (7,), "Pad", pads=[0, 0, 1, 1, 0, 0, 2, 2], mode="reflect")
    yield one("pad inputs", (11, 18), "Pad", {"p": [0, 0, 1, 1, 0, 0, 2, 2]})
    yield one("top-k", (9,), "TopK", x=_floats(2, 7), outputs=("y", "i"), k=3, axis=1)
    for op in ("ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp", "ReduceProd", "ReduceSumSquare"):
        yield one(op, (7, 13, 17), op, x=POSITIVE, axes=[2, 3], keepdims=0)
        yield one(f"{op} all", (11,), op, x=POSITIVE)
    yield one("reduce sum", (7, 12), "ReduceSum", axes=[1], keepdims=0)
    yield one("split", (7, 12), "Split", x=_floats(2, 6), outputs=("y", "z"), axis=1, split=[2, 4])
    yield one("split evenly", (7, 13, 17), "Split", x=_floats(2, 6), outputs=("y", "z"), axis=1)
    yield one(
        "gemm", (7, 9, 10, 13), "Gemm", {"w": _floats(3, 4), "c": _floats(3)}, x=_floats(2, 4), transB=1
    )
    yield one(
        "average pool", (7, 11, 18), "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    )
    yield one("max pool", (7, 8, 11), "MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    yield one("transposed", (7, 11), "ConvTranspose", {"w": _floats(3, 4, 3, 3)}, strides=[2, 2])
    yield one("group norm", (18, 20), "GroupNormalization", {"s": _floats(3), "b": _floats(3)}, num_groups=3)
    boxes = {"r": np.array([[0, 0, 5, 5], [1, 1, 6, 7]], np.float32), "n": [0, 1]}
    yield one("roi align", (10, 15), "RoiAlign", boxes, output_height=2, output_width=2, sampling_ratio=2)
    grid = {"g": (RNG.random((2, 4, 4, 2)) * 2 - 1).astype(np.float32)}
    yield one("grid sample", (16, 19), "GridSample", grid, mode="bilinear")
    yield one(
        "lstm",
        (7, 13),
        "LSTM",
        {"w": _floats(1, 16, 3), "r": _floats(1, 16, 4)},
        x=_floats(5, 2, 3),
        hidden_size=4,
    )
    yield one("layer norm", (7, 9, 13, 16, 17), "LayerNormalization", {"s": _floats(6)}, x=_floats(2, 5, 6))
    normed = [N("LayerNormalization", ["x", "s", "b"], ["h", "m"]), N("Softmax", ["h"], ["y"], axis=1)]
    yield (
        "softmax behind layer norm",
        (8, 12, 15),
        normed,
        {"x": _floats(2, 5, 6)},
        {
            "s": _floats(6),
            "b": _floats(6),
        },
        ("y", "m"),
    )
    hidden = [N("Conv", ["x", "w"], ["h"]), N("GroupNormalization", ["h", "s", "b"], ["y"], num_groups=2)]
    weights = {"w": _floats(4, 3, 3, 3), "s": _floats(2), "b": _floats(2)}
    yield "group norm behind conv", (18,), hidden, {"x": X}, weights, ("y",)
    gelu = [N("Gelu", ["x"], ["h"], domain="com.microsoft"), N("ReduceMean", ["h"], ["y"], axes=[2])]
    yield "other domain", (13, 17), gelu, {"x": X}, {}, ("y",)
    branches = {
        name: helper.make_graph(
            [N("Squeeze", ["x"], [name], axes=[0])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 4])],
        )
        for name in ("then_branch", "else_branch")
    }
    branching = [
        N("ReduceSum", ["x"], ["s"], keepdims=0),
        N("Greater", ["s", "zero"], ["c"]),
        N("If", ["c"], ["y"], **branches),
    ]
    yield "subgraph", (11, 12), branching, {"x": _floats(1, 3, 4)}, {"zero": np.float32(0)}, ("y",)


CASES = [(case, opset) for case in _cases() for opset in case[1]]


@pytest.mark.parametrize(("case", "opset"), CASES, ids=[f"{case[0]} at {opset}" for case, opset in CASES])
def test_same_outputs_after_raising(case, opset, build, run):
    _, _, nodes, inputs, initializers, outputs = case
    model = build(nodes, inputs, initializers, outputs, opset, output_types=I64)
    raised = normalise(ir.from_proto(model))
    assert raised.graph.opset_imports[""] == 21
    for expected, found in zip(run(model, inputs), run(raised, inputs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("level", ["ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_onnxruntime_writes_layer_norms_into_old_models(level, build, run, floats, tmp_path):
    """Saved after its optimizations; a body holds one, too."""

    def in_pieces(x, y):
        mean, rest = N("ReduceMean", [x], ["m" + y], axes=[-1]), N("Sub", [x, "m" + y], ["d" + y])
        root = [
            N("Pow", ["d" + y, "two"], ["s" + y]),
            N("ReduceMean", ["s" + y], ["v" + y], axes=[-1]),
            N("Add", ["v" + y, "eps"], ["e" + y]),
            N("Sqrt", ["e" + y], ["r" + y]),
        ]
        return [mean, rest, *root, N("Div", ["d" + y, "r" + y], ["q" + y]), N("Mul", ["q" + y, "g"], [y])]

    value = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
    then = helper.make_graph([*in_pieces("h", "u"), N("Add", ["u", "g"], ["t"])], "then", [], [value])
    other = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    plain = helper.make_graph([N("Relu", ["h"], ["o"])], "else", [], [other])
    nodes = [
        *in_pieces("x", "n"),
        N("Add", ["n", "b"], ["h"]),
        N("ReduceMax", ["h"], ["top"], keepdims=0),
        N("Less", ["eps", "top"], ["c"]),
        N("If", ["c"], ["y"], then_branch=then, else_branch=plain),
    ]
    stored = {"two": np.float32(2), "eps": np.float32(1e-5), "g": floats(8), "b": floats(8)}
    feeds = {"x": floats(2, 5, 8)}
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "m.onnx")
    model = build(nodes, feeds, stored, opset=14)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    written = onnx.load(tmp_path / "m.onnx")
    raised = normalise(read_model(tmp_path / "m.onnx").model)
    found = [node.op_type for node in ir.traversal.RecursiveGraphIterator(raised.graph)]
    assert found.count("LayerNormalization") == 2
    assert [entry.version for entry in written.opset_import if entry.domain == ""] == [14]
    np.testing.assert_allclose(run(raised, feeds)[0], run(model, feeds)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op", ["LayerNormalization", "SimplifiedLayerNormalization"])
@pytest.mark.parametrize("opset", [14, 18])
def test_norms_in_local_functions(opset, op, run, floats, tmp_path):
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("mine", 1)]
    inner = helper.make_function("mine", "Norm", ["a", "g"], ["b"], [N(op, ["a", "g"], ["b"])], imports)
    outer = helper.make_function(
        "mine",
        "Norms",
        ["a", "g"],
        ["c"],
        [N("Norm", ["a", "g"], ["b"], domain="mine"), N("Norm", ["b", "g"], ["c"], domain="mine")],
        imports,
    )
    scale = floats(8)
    graph = helper.make_graph(
        [N("Norms", ["x", "g"], ["y"], domain="mine")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
        [onnx.numpy_helper.from_array(scale, "g")],
    )
    model = helper.make_model(graph, opset_imports=imports, functions=[inner, outer], ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    after = normalise(read_model(tmp_path / "m.onnx").model)
    x = given = floats(3, 8)
    for _ in range(2):  # onnxruntime does not live through some of these models
        centred = x - x.mean(-1, keepdims=True) if op == "LayerNormalization" else x
        x = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5) * scale
    np.testing.assert_allclose(run(after, {"x": given})[0], x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("opset", [21, 22, 24, 26])
def test_newer_opsets_are_left_alone(opset, build, floats):
    model = build([N("Relu", ["x"], ["y"])], {"x": floats(2, 3)}, opset=opset)
    assert normalise(ir.from_proto(model)).graph.opset_imports[""] == opset


def test_what_cannot_be_raised_is_refused(build, floats):
    model = build([N("Hardmax", ["x"], ["y"], axis=1)], {"x": floats(2, 3, 4)}, opset=11)
    with pytest.raises(ModelError, match="Hardmax"):
        normalise(ir.from_proto(model))


@pytest.mark.parametrize("opset", [7, 9, 13])
def test_batch_norm_that_trains_is_refused(opset, build, floats):
    """Onnxruntime takes outputs of statistics for a wish to train, and gives other values than at inference."""
    norm = {"s": floats(3), "b": floats(3), "m": floats(3), "v": np.abs(floats(3)) + 0.5}
    node = N("BatchNormalization", ["x", *norm], ["y", "mean", "var", "m2", "v2"], "bn")
    model = build([node], {"x": floats(2, 3, 4, 4)}, norm, opset=opset)
    with pytest.raises(ModelError, match="'bn' gives out the statistics") as told:
        normalise(ir.from_proto(model))
    assert "evaluation mode" in told.value.remedy


def test_nearest_resize_both_ways_is_refused(build, floats):
    scales = np.array([1, 1, 2, 0.5], np.float32)
    model = build([N("Resize", ["x", "k"], ["y"], "r")], {"x": floats(1, 1, 4, 4)}, {"k": scales}, opset=10)
    with pytest.raises(ModelError, match="enlarges one axis"):
        normalise(ir.from_proto(model))


def test_standard_operators_imported_by_their_long_name(build, run, floats):
    feeds = {"x": floats(2, 3)}
    model = build([N("ReduceMean", ["x"], ["y"], axes=[1])], feeds, opset=13)
    model.opset_import[0].domain = "ai.onnx"
    raised = normalise(ir.from_proto(model))
    assert raised.graph.opset_imports == {"": 21}
    np.testing.assert_allclose(run(raised, feeds)[0], run(model, feeds)[0], rtol=1e-5)


def test_old_file_format_with_initializers_among_inputs(build, run, floats):
    feeds = {"x": floats(2, 3, 8, 8)}
    weights = {"w": floats(4, 3, 3, 3)}
    model = build([N("Conv", ["x", "w"], ["y"])], feeds, weights, opset=8, initializers_are_inputs=True)
    raised = normalise(ir.from_proto(model))
    assert [value.name for value in raised.graph.inputs] == ["x"]
    np.testing.assert_allclose(run(raised, feeds)[0], run(model, feeds)[0], rtol=1e-5)


@pytest.mark.parametrize("version", [18, 19, 20])
def test_the_converter_would_change_no_more_than_versions(version):
    nodes = [
        N("Relu", ["x"], ["a"], name="a"),
        N("Resize", ["a", "", "scales"], ["b"], name="b", mode="linear"),
        N("Relu", ["x"], ["unread"], name="c"),
        N("Flatten", ["b"], ["y"], name="d"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10)
    ours, theirs = ir.from_proto(proto), ir.from_proto(proto)
    RaiseOpset()(ours)
    ConvertVersionPass(target_version=21)(theirs)
    assert [node.version for node in ours.graph] == [node.version for node in theirs.graph] == [21] * 3
    assert ir.to_proto(ours) == ir.to_proto(theirs)
