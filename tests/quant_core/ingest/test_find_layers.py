"""Which weights are layers, what is known of them, and why others are not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper
from torch.utils.flop_counter import FlopCounterMode

from quant_core.errors import InternalError
from quant_core.ingest import find_float_weights, find_layers, normalise, with_shapes
from quant_core.ingest.static_shapes import static_shapes

N = helper.make_node


def _layers(model):
    return find_layers(normalise(ir.from_proto(model)))


def test_convolution_has_scales_along_its_outputs(build, floats):
    conv = N("Conv", ["x", "w", "b"], ["y"], "conv", group=2)
    (layer,) = _layers(build([conv], {"x": floats(2, 4, 8, 8)}, {"w": floats(6, 2, 3, 3), "b": floats(6)}))
    assert (layer.name, layer.op, layer.weight, layer.bias) == ("conv", "Conv", "w", "b")
    assert (layer.axis, layer.group, layer.parameters) == (0, 2, 108)
    assert (layer.inputs, layer.outputs) == (("x",), ("y",))


@pytest.mark.parametrize(("group", "outputs", "axis"), [(1, 3, 1), (2, 3, None), (4, 3, None), (4, 1, 0)])
def test_transposed_convolution(group, outputs, axis, build, floats):
    node = N("ConvTranspose", ["x", "w"], ["y"], group=group)
    (layer,) = _layers(build([node], {"x": floats(2, 4, 5, 5)}, {"w": floats(4, outputs, 3, 3)}))
    assert layer.axis == axis


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(transposed, build, floats):
    shape = (7, 4) if transposed else (4, 7)
    node = N("Gemm", ["x", "w"], ["y"], transB=transposed)
    (layer,) = _layers(build([node], {"x": floats(2, 4)}, {"w": floats(*shape)}))
    assert layer.shape[layer.axis] == 7
    assert layer.bias is None


@pytest.mark.parametrize(("shape", "axis"), [((4, 7), 1), ((3, 4, 7), (0, 2)), ((1, 4, 7), 2)])
def test_matmul_with_the_weight_on_the_right(shape, axis, build, floats):
    (layer,) = _layers(
        build([N("MatMul", ["x", "w"], ["y"])], {"x": floats(2, 3, 5, 4)}, {"w": floats(*shape)})
    )
    assert (layer.uses[0].operand, layer.uses[0].input) == (1, "x")
    assert layer.axis == axis


def test_matmul_with_the_weight_on_the_left(build, floats):
    (layer,) = _layers(build([N("MatMul", ["w", "x"], ["y"])], {"x": floats(2, 4, 5)}, {"w": floats(7, 4)}))
    assert (layer.uses[0].operand, layer.uses[0].input) == (0, "x")
    assert layer.axis == 0


@pytest.mark.parametrize(("axis", "found"), [(0, 0), (1, 1), (-1, 2), (-3, 0)])
def test_gather_along_any_axis(axis, found, build, floats):
    node = N("Gather", ["w", "x"], ["y"], axis=axis)
    (layer,) = _layers(build([node], {"x": np.array([[0, 2]])}, {"w": floats(3, 4, 5)}))
    assert (layer.op, layer.axis, layer.inputs) == ("Gather", found, ("x",))


def test_gather_of_rows(build):
    (layer,) = _layers(
        build([N("Gather", ["w", "x"], ["y"])], {"x": np.array([0, 2])}, {"w": np.ones((5, 4), np.float32)})
    )
    assert (layer.op, layer.axis, layer.inputs) == ("Gather", 0, ("x",))


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_node_has_two_layers(op, gates, build, floats):
    """With multiply-accumulates as the definition has them: every weight once a step and sample."""
    node = N(op, ["x", "w", "r"], ["", "y"], "memory", hidden_size=6, direction="bidirectional")
    weights = {"w": floats(2, gates * 6, 5), "r": floats(2, gates * 6, 6)}
    model = normalise(ir.from_proto(build([node], {"x": floats(7, 3, 5)}, weights)))
    layers = find_layers(model)
    assert [(layer.name, layer.op, layer.weight) for layer in layers] == [
        ("memory.W", op, "w"),
        ("memory.R", op, "r"),
    ]
    assert [(layer.axis, layer.inputs, layer.outputs) for layer in layers] == [(1, ("x",), ("y",))] * 2
    assert [layer.uses[0].operand for layer in layers] == [1, 2]
    assert all(layer.first and layer.last for layer in layers)
    counted = with_shapes(layers, model, {"x": (7, 3, 5), "y": (2, 3, 6)}, batch=3)
    assert [layer.macs for layer in counted] == [7 * 2 * gates * 6 * 5, 7 * 2 * gates * 6 * 6]


def test_recurrent_weight_that_is_computed_is_no_layer(build, floats):
    node = N("RNN", ["x", "v", "r"], ["y"], "memory", hidden_size=6)
    inputs = {"x": floats(7, 3, 5), "v": floats(1, 6, 5)}
    assert [layer.name for layer in _layers(build([node], inputs, {"r": floats(1, 6, 6)}))] == ["memory.R"]


def test_recurrent_weight_of_two_nodes_is_one_layer(build, floats):
    nodes = [
        N("RNN", ["x", "w", "r"], ["", "a"], "one", hidden_size=6),
        N("RNN", ["x", "w", "s"], ["", "b"], "two", hidden_size=6),
        N("Add", ["a", "b"], ["y"]),
    ]
    weights = {"w": floats(1, 6, 5), "r": floats(1, 6, 6), "s": floats(1, 6, 6)}
    shared, *own = _layers(build(nodes, {"x": floats(7, 3, 5)}, weights))
    assert [use.node for use in shared.uses] == ["one", "two"]
    assert [layer.name for layer in (shared, *own)] == ["one.W", "one.R", "two.R"]


NO_LAYERS = {
    "elementwise": N("Mul", ["f", "w"], ["y"]),
    "two activations": N("MatMul", ["f", "f"], ["y"]),
    "vector": N("MatMul", ["f", "v"], ["y"]),
}


@pytest.mark.parametrize("kind", NO_LAYERS)
def test_what_is_no_layer(kind, build, floats):
    assert _layers(build([NO_LAYERS[kind]], {"f": floats(4, 4)}, {"w": floats(4, 4), "v": floats(4)})) == ()


def test_integer_table_is_no_layer(build):
    model = build(
        [N("Gather", ["w", "x"], ["y"])],
        {"x": np.array([0, 2])},
        {"w": np.arange(20).reshape(5, 4)},
        output_types={"y": TensorProto.INT64},
    )
    assert _layers(model) == ()


def test_shared_weight_is_one_layer_without_axis_where_uses_disagree(build, floats):
    nodes = [N("MatMul", ["x", "w"], ["a"], "one"), N("MatMul", ["w", "a"], ["y"], "two")]
    (layer,) = _layers(build(nodes, {"x": floats(4, 4)}, {"w": floats(4, 4)}))
    assert [use.node for use in layer.uses] == ["one", "two"]
    assert [use.operand for use in layer.uses] == [1, 0]
    assert layer.axis is None


def test_weight_with_another_reader_is_no_layer_and_is_explained(build, floats):
    nodes = [N("MatMul", ["x", "w"], ["a"], "one"), N("Mul", ["a", "w"], ["y"], "scale")]
    model = normalise(ir.from_proto(build(nodes, {"x": floats(30, 30)}, {"w": floats(30, 30)})))
    assert find_layers(model) == ()
    (weight,) = find_float_weights(model, ())
    assert weight.name == "w"
    assert "Mul 'scale'" in weight.reason
    assert "MatMul" not in weight.reason


def test_weight_inside_a_subgraph_stays_float(build, floats):
    branches = {
        name: helper.make_graph(
            [N("MatMul", ["x", "w"], [name])], name, [], [helper.make_tensor_value_info(name, 1, [3, 4])]
        )
        for name in ("then_branch", "else_branch")
    }
    nodes = [
        N("ReduceSum", ["x"], ["s"], keepdims=0),
        N("Greater", ["s", "zero"], ["c"]),
        N("If", ["c"], ["h"], **branches),
        N("MatMul", ["h", "w"], ["y"]),
    ]
    constants = {"w": floats(4, 4), "zero": np.float32(0)}
    model = normalise(ir.from_proto(build(nodes, {"x": floats(3, 4)}, constants)))
    assert find_layers(model) == ()
    assert "inside If" in find_float_weights(model, ())[0].reason


def test_a_dead_branch_reads_nothing(build, floats):
    """The weight is a layer although the branch that is never taken multiplies with it element by element."""
    alive = helper.make_graph(
        [N("MatMul", ["x", "w"], ["a"])], "alive", [], [helper.make_tensor_value_info("a", 1, ["n", 4])]
    )
    inner = helper.make_graph(
        [N("Mul", ["x", "w"], ["i"])], "inner", [], [helper.make_tensor_value_info("i", 1, None)]
    )
    nested = N("If", ["yes"], ["d"], then_branch=inner, else_branch=inner)
    dead = helper.make_graph([nested], "dead", [], [helper.make_tensor_value_info("d", 1, None)])
    node = N("If", ["yes"], ["y"], then_branch=alive, else_branch=dead)
    model = build([node], {"x": floats(4, 4)}, {"w": floats(4, 4), "yes": np.array(True)})
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["batch", 4]))
    normal = normalise(ir.from_proto(model))
    assert [layer.weight for layer in find_layers(normal)] == ["w"]
    assert find_float_weights(normal, find_layers(normal)) == ()


def test_layers_come_in_graph_order(resnet20):
    layers = find_layers(normalise(ir.load(resnet20)))
    assert layers[0].weight == "conv1.weight"
    assert layers[-1].weight == "fc.weight"
    assert len({layer.name for layer in layers}) == len(layers) == 22


MODULES = {
    "conv": (torch.nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 9, 9)),
    "deconv": (torch.nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 5, 5)),
    "linear": (torch.nn.Linear(5, 7), (3, 5)),
}


@pytest.mark.parametrize("kind", MODULES)
def test_macs_agree_with_a_count_by_torch(kind, build):
    module, shape = MODULES[kind]
    feed = torch.zeros(3, *shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = module(feed)
    weight = module.weight.detach().numpy()
    match kind:
        case "conv":
            node = N("Conv", ["x", "w"], ["y"], group=2, strides=[2, 2], pads=[1, 1, 1, 1])
        case "deconv":
            node = N("ConvTranspose", ["x", "w"], ["y"], group=2, strides=[2, 2])
        case _:
            node, weight = N("MatMul", ["x", "w"], ["y"]), weight.T.copy()
    model = ir.from_proto(build([node], {"x": feed.numpy()}, {"w": weight}))
    layers = find_layers(model)
    shapes = {"x": tuple(feed.shape), "y": tuple(output.shape)}
    (layer,) = with_shapes(layers, model, shapes, batch=3)
    # Two operations make one multiply-accumulate.
    assert layer.macs * 3 * 2 == counter.get_total_flops()
    shapes = static_shapes(model)
    assert with_shapes(layers, model, shapes.sizes, shapes.batch)[0].macs == layer.macs


def test_macs_of_resnet20_are_those_of_the_paper(resnet20):
    model = normalise(ir.load(resnet20))
    shapes = static_shapes(model)
    total = sum(layer.macs for layer in with_shapes(find_layers(model), model, shapes.sizes, shapes.batch))
    # He et al. give 40.6 M without the two projections, which cost 0.26 M.
    assert total == pytest.approx(40.8e6, rel=0.005)


def test_missing_shape_is_our_own_fault(build, floats):
    model = ir.from_proto(build([N("MatMul", ["x", "w"], ["y"])], {"x": floats(2, 4)}, {"w": floats(4, 3)}))
    with pytest.raises(InternalError, match="y"):
        with_shapes(find_layers(model), model, {"x": (2, 4)}, batch=2)
