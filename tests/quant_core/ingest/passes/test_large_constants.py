"""Large constants that no layer reads become layers; masks, grids and small ones stay what they are."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from quant_core.ingest import find_layers, normalise

N = helper.make_node
INFO = helper.make_tensor_value_info


def _check(model, run, feeds):
    """Normalise; onnxruntime must compute the same of it."""
    after = normalise(ir.from_proto(model))
    for one, other in zip(run(model, feeds), run(after, feeds), strict=True):
        np.testing.assert_array_equal(one, other)
    return {layer.name: (layer.op, layer.weight, layer.shape, layer.axis) for layer in find_layers(after)}


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((1, 64, 40), 2), ((40, 64), 0), ((1, 1024, 1), None), ((30, 30), None)],
)
def test_a_table_that_is_added(shape, axis, build, run, floats):
    """With a step along the axis whose slices differ most in size; not where it is a vector, nor where it is small."""
    spread = np.geomspace(1, 100, 40, dtype=np.float32)
    table = floats(*shape) * (
        spread[: shape[axis]].reshape(-1, *(1,) * (len(shape) - 1 - axis)) if axis is not None else 1
    )
    feeds = {"x": floats(2, *shape[-2:])}
    found = _check(build([N("Add", ["x", "t"], ["y"])], feeds, {"t": table}), run, feeds)
    assert found == ({} if axis is None else {"t": ("Gather", "t", shape, axis)})


def test_names_that_others_have(build, run, floats):
    feeds = {"x": floats(2, 40, 40)}
    nodes = [N("Mul", ["x", "t"], ["t/read"], "t"), N("Add", ["t/read", "t/rows"], ["y"])]
    model = build(nodes, feeds, {"t": floats(40, 40), "t/rows": floats(40)})
    assert list(_check(model, run, feeds)) == ["t_1"]


@pytest.mark.parametrize("kind", ["mask", "masked", "grid", "far", "infinite", "twos"])
def test_what_stays(kind, build, run, floats):
    values = floats(64, 64)
    if kind == "mask":
        values = np.triu(np.full((64, 64), -1e9, np.float32))
    elif kind == "masked":
        values = np.where(np.tri(64) > 0, values, -100).astype(np.float32)
    elif kind == "grid":
        values = np.add.outer(np.linspace(-1, 1, 64), np.zeros(64)).astype(np.float32)
    elif kind == "far":
        values[0, 0] = 1e9
    elif kind == "infinite":
        values[0, 0] = -np.inf
    else:
        values = np.round(values)
    feeds = {"x": floats(2, 64, 64)}
    assert _check(build([N("Add", ["x", "t"], ["y"])], feeds, {"t": values}), run, feeds) == {}


def test_a_small_share_of_the_model_stays(build, run, floats):
    feeds = {"x": floats(2, 500)}
    nodes = [
        N("MatMul", ["x", "w"], ["h"], "product"),
        N("Reshape", ["h", "s"], ["square"]),
        N("Add", ["square", "t"], ["y"]),
    ]
    constants = {"w": floats(500, 1024), "t": floats(32, 32), "s": np.array([-1, 32, 32])}
    assert list(_check(build(nodes, feeds, constants), run, feeds)) == ["product"]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_weights_in_bodies(op, stored, build, run, floats):
    """Whether the body holds the weight or reads that of the graph around it; steps are those of outputs."""
    turned = {"transB": 1} if op == "Gemm" else {}
    weight = floats(40, 40)
    body = helper.make_graph(
        [
            N("Identity", ["go"], ["goes"], "still"),
            N(op, ["state", "w"], ["m"], "step", **turned),
            N("Tanh", ["m"], ["next"], "bound"),
        ],
        "body",
        [INFO("i", 7, []), INFO("go", 9, []), INFO("state", 1, ["b", 40])],
        [INFO("goes", 9, []), INFO("next", 1, ["b", 40])],
        [helper.make_tensor("w", TensorProto.FLOAT, (40, 40), weight.ravel())] if stored else [],
    )
    # The weight of the product in front has the name that the body's has, where that is another one.
    nodes = [
        N("MatMul", ["x", "v"], ["first"], "before"),
        N("Loop", ["k", "", "first"], ["y"], "turns", body=body),
    ]
    constants = {"v": floats(40, 40), "k": np.array(3)} | ({} if stored else {"w": weight})
    feeds = {"x": floats(2, 40)}
    model = build(nodes, feeds, constants)
    model.graph.output[0].CopyFrom(INFO("y", 1, ["batch", 40]))
    found = _check(model, run, feeds)
    assert found == {
        "w": ("Gather", "w", (40, 40), 0 if turned else 1),
        "before": ("MatMul", "v", (40, 40), 1),
    }


def test_both_branches_with_tensors_of_one_name(build, run, floats):
    branches = {
        name: helper.make_graph(
            [N("MatMul", ["x", "w"], [name])],
            name,
            [],
            [INFO(name, 1, ["batch", 40])],
            [helper.make_tensor("w", TensorProto.FLOAT, (40, 40), floats(40, 40).ravel())],
        )
        for name in ("then_branch", "else_branch")
    }
    nodes = [
        N("ReduceSum", ["x"], ["s"], keepdims=0),
        N("Greater", ["s", "zero"], ["c"]),
        N("If", ["c"], ["y"], **branches),
    ]
    for sign in (1, -1):
        feeds = {"x": sign * np.abs(floats(2, 40))}
        found = _check(build(nodes, feeds, {"zero": np.float32(0)}), run, feeds)
        assert [layer[2] for layer in found.values()] == [(40, 40), (40, 40)]


def test_biases_and_states_of_recurrent_nodes_stay(build, run, floats):
    weights = {"w": floats(2, 1024, 4), "r": floats(2, 1024, 256), "b": floats(2, 2048)}
    node = N("LSTM", ["x", "w", "r", "b"], ["y"], "memory", hidden_size=256, direction="bidirectional")
    feeds = {"x": floats(3, 2, 4)}
    assert list(_check(build([node], feeds, weights), run, feeds)) == ["memory.W", "memory.R"]
