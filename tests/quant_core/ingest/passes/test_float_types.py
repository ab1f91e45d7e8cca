"""Half and double precision, computed in float32 between inputs and outputs of their own type."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from quant_core.ingest import find_layers, normalise
from quant_core.ingest.passes.float_types import COMPUTED_IN_FLOAT32
from quant_core.ingest.reading.node_order import sort_nodes
from tests.networks import network

N = helper.make_node
HALF, BRAIN, DOUBLE = TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE


def _product(build, floats, kind):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    feeds = {"x": floats(2, 4).astype(dtype)}
    weights = {"w": floats(4, 3).astype(dtype), "b": floats(3).astype(dtype)}
    nodes = [N("MatMul", ["x", "w"], ["h"]), N("Add", ["h", "b"], ["a"]), N("Relu", ["a"], ["y"])]
    return build(nodes, feeds, weights, output_types={"y": kind}), feeds


@pytest.mark.parametrize("kind", [HALF, DOUBLE])
def test_inputs_and_outputs_keep_their_type(kind, build, floats, run):
    model, feeds = _product(build, floats, kind)
    normal = normalise(ir.from_proto(model))
    proto = ir.to_proto(normal)
    onnx.checker.check_model(proto, full_check=True)
    for before, after in zip(model.graph.input, proto.graph.input, strict=True):
        assert before == after
    assert proto.graph.output[0] == model.graph.output[0]
    assert [node.op_type for node in proto.graph.node] == ["Cast", "MatMul", "Add", "Relu", "Cast"]
    assert {tensor.data_type for tensor in proto.graph.initializer} == {TensorProto.FLOAT}
    assert [layer.weight for layer in find_layers(normal)] == ["w"]
    (expected,), (found,) = run(model, feeds), run(normal, feeds)
    assert found.dtype == expected.dtype
    assert np.allclose(found, expected, rtol=2e-3 if kind == HALF else 1e-5, atol=1e-3)


def test_casts_inside_vanish(resnet20, images, run):
    """Of the casts that a converter writes around every block nothing remains, and no rounding either."""
    half = convert_float_to_float16(onnx.load(resnet20), keep_io_types=True)
    sort_nodes(half.graph)
    normal = normalise(ir.from_proto(half))
    assert all(node.op_type != "Cast" for node in normal.graph)
    assert normal.meta[COMPUTED_IN_FLOAT32] == ("float16",)
    assert len(find_layers(normal)) == 22
    stored = {tensor.name: tensor for tensor in half.graph.initializer}
    weight = normal.graph.initializers["fc.weight"].const_value
    assert np.array_equal(weight.numpy(), numpy_helper.to_array(stored["fc.weight"]).astype(np.float32))
    (expected,) = run(resnet20, {"input": images[:4]})
    (found,) = run(normal, {"input": images[:4]})
    assert np.abs(found - expected).max() < 5e-3 * np.abs(expected).max()  # the weights are rounded to half


def test_bfloat16_weights(build, floats, run):
    """onnxruntime has no kernel for them, so numpy is the judge."""
    x = floats(2, 4)
    model = build(
        [
            N("Cast", ["x"], ["h"], to=BRAIN),
            N("MatMul", ["h", "w"], ["p"]),
            N("Cast", ["p"], ["y"], to=1),
        ],
        {"x": x},
    )
    raw = (floats(4, 3).view(np.uint32) >> 16).astype(np.uint16)
    model.graph.initializer.append(helper.make_tensor("w", BRAIN, (4, 3), raw.tobytes(), raw=True))
    normal = normalise(ir.from_proto(model))
    assert [node.op_type for node in normal.graph] == ["MatMul"]
    weight = (raw.astype(np.uint32) << 16).view(np.float32)
    assert np.allclose(run(normal, {"x": x})[0], x @ weight, rtol=1e-5)


def test_masks_of_double_stay_finite(build, floats, run):
    lowest = np.finfo(np.float64).min
    feeds = {"x": floats(2, 4).astype(np.float64)}
    weights = {"w": floats(4, 3).astype(np.float64), "m": np.array([0, lowest, -np.inf])}
    nodes = [
        N("MatMul", ["x", "w"], ["h"]),
        N("Max", ["h", "m"], ["a"]),
        N("Relu", ["a"], ["y"]),
    ]
    normal = normalise(ir.from_proto(build(nodes, feeds, weights, output_types={"y": DOUBLE})))
    stored = normal.graph.initializers["m"].const_value.numpy()
    assert stored.tolist() == [0, np.finfo(np.float32).min, -np.inf]


def test_double_without_layers_is_left_alone(build, floats, run):
    """Positions counted in double within a float32 model."""
    nodes = [
        N("Cast", ["x"], ["d"], to=DOUBLE),
        N("Mul", ["d", "s"], ["e"]),
        N("Cast", ["e"], ["f"], to=1),
        N("MatMul", ["f", "w"], ["y"]),
    ]
    feeds = {"x": floats(2, 4)}
    model = build(nodes, feeds, {"w": floats(4, 3), "s": np.array([1 / 3])})
    normal = normalise(ir.from_proto(model))
    assert [node.op_type for node in normal.graph] == ["Cast", "Mul", "Cast", "MatMul"]
    assert COMPUTED_IN_FLOAT32 not in normal.meta
    assert np.array_equal(run(normal, feeds)[0], run(model, feeds)[0])


def test_subgraphs_and_created_constants(build, floats, run):
    """A Loop that carries half-precision state, and a constant that is made of a shape."""
    value = numpy_helper.from_array(np.array([0.5], np.float16), "")
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            N("Identity", ["go"], ["goes"]),
            N("MatMul", ["state", "w"], ["m"]),
            N("Add", ["m", "half"], ["next"]),
        ],
        "body",
        [info("i", 7, []), info("go", 9, []), info("state", HALF, ["b", 4])],
        [info("goes", 9, []), info("next", HALF, ["b", 4])],
    )
    nodes = [
        N("Shape", ["x"], ["shape"]),
        N("ConstantOfShape", ["shape"], ["half"], value=value),
        N("MatMul", ["x", "v"], ["first"]),
        N("Loop", ["count", "", "first"], ["y"], body=body),
    ]
    feeds = {"x": floats(2, 4).astype(np.float16)}
    weights = {"w": floats(4, 4).astype(np.float16) / 4, "v": floats(4, 4).astype(np.float16) / 4}
    weights["count"] = np.array(3, np.int64)
    model = build(nodes, feeds, weights, output_types={"y": HALF})
    model.graph.output[0].CopyFrom(info("y", HALF, ["batch", 4]))
    normal = normalise(ir.from_proto(model))
    onnx.checker.check_model(ir.to_proto(normal), full_check=True)
    (expected,), (found,) = run(model, feeds), run(normal, feeds)
    assert np.allclose(found, expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize(("told", "opset"), [("", 21), ("", 17), ("seq(float16) ", 21)])
def test_sequences_that_a_loop_carries(told, opset, floats, run):
    """Their elements change type as tensors do; a body that says nothing of its inputs still says nothing."""
    model = network(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g (float16[n, 4] x, float16[4, 4] w, int64 count) => (float16[n, k] y) {{
        yes = Constant<value = bool {{1}}>()
        none = SequenceEmpty<dtype = {HALF}>()
        all = Loop(count, yes, none) <body = b (int64 i, bool c, {told}s0) => (bool d, {told}s1) {{
            d = Identity(c)  m = MatMul(x, w)  s1 = SequenceInsert(s0, m)
        }}>
        z = ConcatFromSequence<axis = 1>(all)
        y = MatMul(z, v)
    }}""",
        {"v": floats(8, 3).astype(np.float16)},
    )
    feeds = {"x": floats(2, 4).astype(np.float16), "w": floats(4, 4).astype(np.float16)}
    feeds["count"] = np.array(2, np.int64)
    normal = normalise(ir.from_proto(model))
    onnx.checker.check_model(ir.to_proto(normal), full_check=True)
    (expected,), (found,) = run(model, feeds), run(normal, feeds)
    assert np.allclose(found, expected, rtol=5e-3, atol=2e-2)
