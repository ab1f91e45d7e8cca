"""Normalising changes the form of a graph and never what it computes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.ingest import find_layers, normalise, read_model

N = helper.make_node


def _normal(model) -> ir.Model:
    return normalise(ir.from_proto(model))


def _ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def _check_same(run, before, after, feeds, rtol=1e-5):
    for expected, found in zip(run(before, feeds), run(after, feeds), strict=True):
        scale = float(np.abs(expected.astype(np.float64)).max())
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * scale)


def _norm(floats, channels):
    names = dict(zip(("s", "b", "m"), floats(3, channels), strict=True))
    return names | {"v": np.abs(floats(channels)) + 0.5}


def _bn(source="h", name="bn", **attributes):
    return N("BatchNormalization", [source, "s", "b", "m", "v"], ["y"], name, **attributes)


def test_resnet20(resnet20, images, run):
    source = read_model(resnet20)
    before = [tensor.name for tensor in source.model.graph.initializers.values()]
    model = normalise(source.model)
    feeds = {"input": images[:16]}
    _check_same(run, resnet20, model, feeds)
    assert set(_ops(model)) == {"Conv", "Relu", "Add", "GlobalAveragePool", "Flatten", "Gemm"}
    assert len(find_layers(model)) == 22
    assert model.graph.inputs[0].shape[0] == source.model.graph.inputs[0].shape[0]
    assert model.graph.outputs[0].name == "logits"
    # The source is left as it was, values and all.
    assert [tensor.name for tensor in source.model.graph.initializers.values()] == before
    _check_same(run, resnet20, source.model, feeds, rtol=0)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_resnet20_as_external_data(resnet20, images, run, tmp_path):
    ir.save(ir.load(resnet20), tmp_path / "m.onnx", external_data="m.data")
    source = read_model(tmp_path / "m.onnx")
    assert source.file_bytes > 0.9 * resnet20.stat().st_size
    ir.save(normalise(source.model), tmp_path / "n.onnx")
    _check_same(run, resnet20, tmp_path / "n.onnx", {"input": images[:4]})


def test_no_ops_go_and_outputs_keep_their_names(build, run, floats):
    feeds = {"x": floats(2, 3)}
    nodes = [
        N("Dropout", ["x"], ["d"]),
        N("Cast", ["d"], ["c"], to=TensorProto.FLOAT),
        N("Relu", ["c"], ["r"]),
        N("Identity", ["r"], ["i"]),
        N("Dropout", ["i"], ["y"]),
    ]
    before = build(nodes, feeds)
    after = _normal(before)
    assert _ops(after) == ["Relu"]
    assert after.graph.outputs[0].name == "y"
    _check_same(run, before, after, feeds)


def test_identity_from_input_to_output_stays(build, run, floats):
    feeds = {"x": floats(2, 3)}
    before = build([N("Identity", ["x"], ["y"])], feeds)
    _check_same(run, before, _normal(before), feeds)


def test_two_outputs_of_one_tensor(build, run, floats):
    feeds = {"x": floats(2, 3)}
    nodes = [N("Relu", ["x"], ["y"]), N("Identity", ["y"], ["z"])]
    before = build(nodes, feeds, outputs=("y", "z"))
    after = _normal(before)
    assert [value.name for value in after.graph.outputs] == ["y", "z"]
    _check_same(run, before, after, feeds)


def test_identity_around_a_subgraph_stays_valid(build, run, floats):
    feeds = {"x": floats(2, 3)}
    branches = {
        name: helper.make_graph(
            [N("Identity", ["h"], [name])], name, [], [helper.make_tensor_value_info(name, 1, [2, 3])]
        )
        for name in ("then_branch", "else_branch")
    }
    nodes = [
        N("Relu", ["x"], ["h"]),
        N("ReduceSum", ["x"], ["s"], keepdims=0),
        N("Greater", ["s", "zero"], ["c"]),
        N("If", ["c"], ["y"], **branches),
    ]
    before = build(nodes, feeds, {"zero": np.float32(0)})
    _check_same(run, before, _normal(before), feeds)


def test_constant_as_output(build, run, floats):
    feeds = {"x": floats(2, 3)}
    nodes = [N("Constant", [], ["z"], value_floats=[1.0, 2.0]), N("Relu", ["x"], ["y"])]
    before = build(nodes, feeds, outputs=("y", "z"))
    _check_same(run, before, _normal(before), feeds)


def test_weight_arithmetic_becomes_one_weight(build, run, floats):
    # Weight normalization: W = g * V / |V|.
    feeds = {"x": floats(2, 64)}
    nodes = [
        N("ReduceL2", ["v", "axes"], ["norm"], keepdims=1),
        N("Div", ["v", "norm"], ["unit"]),
        N("Mul", ["unit", "g"], ["w"]),
        N("Transpose", ["w"], ["wt"], perm=[1, 0]),
        N("MatMul", ["x", "wt"], ["y"]),
    ]
    before = build(nodes, feeds, {"v": floats(48, 64), "g": floats(48, 1), "axes": np.array([1])})
    after = _normal(before)
    assert _ops(after) == ["MatMul"]
    assert [layer.shape for layer in find_layers(after)] == [(64, 48)]
    _check_same(run, before, after, feeds)


STANDARDIZED = [
    N("ReduceMean", ["w", "axes"], ["mean"]),
    N("Sub", ["w", "mean"], ["centred"]),
    N("Mul", ["centred", "centred"], ["squares"]),
    N("ReduceMean", ["squares", "axes"], ["variance"]),
    N("Sqrt", ["variance"], ["deviation"]),
    N("Div", ["centred", "deviation"], ["weight"]),
]
IN_TRAINING = [
    N("Reshape", ["w", "as_channels"], ["rows"]),
    N("BatchNormalization", ["rows", "one", "none", "none", "one"], ["n", "m", "v"], training_mode=1),
    N("Reshape", ["n", "as_weight"], ["weight"]),
]
SPECTRAL = [
    N("MatMul", ["w", "v"], ["wv"]),
    N("Mul", ["wv", "u"], ["along"]),
    N("ReduceSum", ["along"], ["largest"], keepdims=0),
    N("Div", ["w", "largest"], ["weight"]),
]
LOW_RANK = [N("MatMul", ["a", "b"], ["ab"]), N("Add", ["w", "ab"], ["weight"])]
CUT = [N("Split", ["w"], ["q", "k"], axis=0, num_outputs=2), N("Concat", ["k", "q"], ["weight"], axis=0)]


@pytest.mark.parametrize("made", [STANDARDIZED, IN_TRAINING, SPECTRAL, LOW_RANK, CUT])
def test_what_several_nodes_make_of_a_weight_becomes_one_weight(made, build, run, floats):
    feeds = {"x": floats(2, 48)}
    constants = {"w": floats(48, 48), "axes": np.array([1]), "v": floats(48), "u": floats(48)}
    constants |= {
        "a": floats(48, 4),
        "b": floats(4, 48),
        "one": np.ones(48, np.float32),
        "none": 0 * floats(48),
    }
    constants |= {"as_channels": np.array([1, 48, 48]), "as_weight": np.array([48, 48])}
    read = {name for node in made for name in node.input}
    before = build(
        [*made, N("MatMul", ["x", "weight"], ["y"])],
        feeds,
        {name: array for name, array in constants.items() if name in read},
    )
    after = _normal(before)
    assert _ops(after) == ["MatMul"]
    assert list(after.graph.initializers) == ["weight"]
    _check_same(run, before, after, feeds)


def test_cuts_that_are_read_apart_become_weights_and_shared_ones_stay(build, run, floats):
    """The projections of torch's attention between two sequences: one cut for the query, one for key and value."""
    feeds = {"x": floats(2, 40)}
    nodes = [
        N("Split", ["w"], ["q", "kv"], axis=1, num_outputs=2),
        N("MatMul", ["x", "q"], ["a"], "first"),
        N("MatMul", ["a", "kv"], ["b"], "second"),
    ]
    alone = build([*nodes, N("Identity", ["b"], ["y"])], feeds, {"w": floats(40, 80)})
    after = _normal(alone)
    assert [layer.shape for layer in find_layers(after)] == [(40, 40), (40, 40)]
    _check_same(run, alone, after, feeds)
    read_whole = build([*nodes, N("MatMul", ["b", "w"], ["y"])], feeds, {"w": floats(40, 80)})
    assert _ops(_normal(read_whole)).count("Split") == 1


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 3)])
def test_tied_table_is_one_layer_and_not_copied(shape, build, run):
    feeds = {"x": np.arange(np.prod(shape)).reshape(shape)}
    nodes = [
        N("Gather", ["table", "x"], ["h"], "embed"),
        N("Transpose", ["table"], ["turned"], "turn", perm=[1, 0]),
        N("MatMul", ["h", "turned"], ["y"], "head"),
    ]
    table = np.random.default_rng(0).standard_normal((100, 32)).astype(np.float32)
    before = build(nodes, feeds, {"table": table})
    after = _normal(before)
    assert 3200 <= sum(value.const_value.size for value in after.graph.initializers.values()) < 3210
    (layer,) = find_layers(after)
    assert [(use.node, use.op) for use in layer.uses] == [("embed", "Gather"), ("head", "Gemm")]
    assert layer.axis == 0
    _check_same(run, before, after, feeds)


def test_tied_table_behind_an_operator_whose_shapes_nobody_infers(build, run):
    feeds = {"x": np.arange(6).reshape(2, 3)}
    nodes = [
        N("Gather", ["table", "x"], ["h"], "embed"),
        N("QuickGelu", ["h"], ["q"], "gate", domain="com.microsoft"),
        N("Transpose", ["table"], ["turned"], "turn", perm=[1, 0]),
        N("MatMul", ["q", "turned"], ["y"], "head"),
    ]
    table = np.random.default_rng(0).standard_normal((100, 32)).astype(np.float32)
    before = build(nodes, feeds, {"table": table})
    after = _normal(before)
    (layer,) = find_layers(after)
    assert [use.op for use in layer.uses] == ["Gather", "Gemm"]
    _check_same(run, before, after, feeds)


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_with_a_tied_table(transposed, build, run, floats):
    feeds = {"x": floats(4, 40)}
    nodes = [
        N("Transpose", ["table"], ["turned"], "turn", perm=[1, 0]),
        N("Gemm", ["x", "turned"], ["h"], "head", transB=transposed),
        N("Gemm", ["h", "table"], ["y"], "tail"),
    ]
    before = build(nodes, feeds, {"table": floats(40, 40)})
    after = _normal(before)
    assert _ops(after) == ["Gemm", "Gemm"]
    assert len(find_layers(after)) == 1
    _check_same(run, before, after, feeds)


def test_constants_that_would_grow_stay_expressions(build, run, floats):
    feeds = {"x": floats(1, 2000)}
    nodes = [
        N("ConstantOfShape", ["huge"], ["zeros"]),
        N("Shape", ["zeros"], ["shape"]),
        N("Expand", ["row", "tall"], ["table"]),
        N("ReduceSum", ["table", "axis"], ["sum"], keepdims=0),
        N("Add", ["x", "sum"], ["a"]),
        N("Cast", ["shape"], ["f"], to=TensorProto.FLOAT),
        N("ReduceMean", ["f"], ["mean"], keepdims=0),
        N("Add", ["a", "mean"], ["y"]),
    ]
    constants = {
        "huge": np.array([1 << 12, 1 << 10]),
        "row": floats(1, 2000),
        "tall": np.array([64, 2000]),
        "axis": np.array([0]),
    }
    before = build(nodes, feeds, constants)
    after = _normal(before)
    assert ir.to_proto(after).ByteSize() < before.ByteSize() + 9000
    _check_same(run, before, after, feeds)


@pytest.mark.parametrize("stops", [(16, 32, 48, 64), (16, 32, 48, 64, 56)])
def test_gates_in_another_order_become_one_weight(stops, build, run, floats):
    """As exporters write recurrent weights: cut up and put together again; but not where that repeats a part."""
    feeds = {"x": floats(7, 2, 80)}
    starts = [stop - 16 for stop in stops]
    nodes = [
        N("Slice", ["w", f"{start}", f"{stop}", "zero"], [f"part{k}"])
        for k, (start, stop) in enumerate(zip(starts, stops, strict=True))
    ]
    parts = [f"part{k}" for k in (0, 3, 1, 2)]
    nodes += [
        N("Concat", parts, ["gates"], axis=0),
        N("Unsqueeze", ["gates", "zero"], ["stacked"]),
        N("LSTM", ["x", "stacked", "r"], ["h"], "memory", hidden_size=16),
    ]
    if len(stops) > 4:
        nodes += [
            N("Transpose", ["part4"], ["turned"], perm=[1, 0]),
            N("MatMul", ["x", "turned"], ["again"], "again"),
            N("Add", ["h", "again"], ["y"]),
        ]
    else:
        nodes.append(N("Identity", ["h"], ["y"]))
    weights = {"w": floats(64, 80), "r": floats(1, 64, 16)}
    ends = {f"{place}": np.array([place]) for place in (*starts, *stops)}
    before = build(nodes, feeds, weights | ends | {"zero": np.array([0])})
    after = _normal(before)
    cut = [node for node in after.graph if node.op_type == "Slice"]
    layers = {layer.name: layer.shape for layer in find_layers(after)}
    whole = {"memory.W": (1, 64, 80)} if len(stops) == 4 else {}
    assert layers == whole | {"memory.R": (1, 64, 16)}
    assert bool(cut) == (len(stops) > 4)
    assert ir.to_proto(after).ByteSize() < before.ByteSize() + 1000
    _check_same(run, before, after, feeds)


def test_shape_arithmetic_is_folded(build, run, floats):
    feeds = {"x": floats(2, 3, 4)}
    nodes = [
        N("Shape", ["x"], ["shape"]),
        N("Gather", ["shape", "two"], ["last"], axis=0),
        N("Concat", ["minus", "last"], ["target"], axis=0),
        N("Reshape", ["x", "target"], ["y"]),
    ]
    before = build(nodes, feeds, {"two": np.array([2]), "minus": np.array([-1])})
    after = _normal(before)
    assert _ops(after) == ["Reshape"]
    _check_same(run, before, after, feeds)


def test_shapes_noted_by_an_exporter_are_not_believed(build, run, floats):
    # The example's batch of 2 is noted inside the graph, but the input's batch is dynamic.
    nodes = [
        N("Relu", ["x"], ["h"]),
        N("Shape", ["h"], ["shape"]),
        N("Gather", ["shape", "zero"], ["batch"], axis=0),
        N("Concat", ["batch", "minus"], ["target"], axis=0),
        N("Reshape", ["h", "target"], ["y"]),
    ]
    before = build(nodes, {"x": floats(2, 3, 4)}, {"zero": np.array([0]), "minus": np.array([-1])})
    noted = onnx.ModelProto()
    noted.CopyFrom(before)
    noted.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [2, 3, 4]))
    _check_same(run, before, _normal(noted), {"x": floats(5, 3, 4)})


@pytest.mark.parametrize("picked", [[1], [0, 1, 2, 3], [0, 1, 2, 3, 2]], ids=["one", "each", "one twice"])
def test_matrices_picked_from_a_stack_become_weights(picked, build, run, floats):
    """Unless that repeats one: as models keep the weights of all experts or blocks in one tensor."""
    tensor, nodes = "x", []
    for k, index in enumerate(picked):
        nodes += [
            N("Gather", ["stack", f"i{index}"], [f"w{k}"]),
            N("MatMul", [tensor, f"w{k}"], [f"y{k}"], f"m{k}"),
        ]
        tensor = f"y{k}"
    indices = {f"i{index}": np.array(index) for index in picked}
    feeds = {"x": floats(2, 40)}
    model = build(nodes, feeds, {"stack": floats(4, 40, 40) / 6, **indices}, (tensor,))
    after = normalise(ir.from_proto(model))
    np.testing.assert_allclose(run(after, feeds)[0], run(model, feeds)[0], rtol=1e-4, atol=1e-5)
    folded = len(picked) <= 4
    assert (after.graph.num_nodes() == len(picked)) == folded
    assert (len(find_layers(after)) == len(picked)) == folded


def test_lookup_in_a_large_table_stays_a_lookup(build, run, floats):
    feeds = {"x": floats(2, 40, 64)}
    nodes = [N("Gather", ["table", "rows"], ["h"], "positions"), N("Add", ["x", "h"], ["y"])]
    before = build(nodes, feeds, {"table": floats(100, 64), "rows": np.arange(40)})
    after = _normal(before)
    assert [layer.name for layer in find_layers(after)] == ["positions"]
    _check_same(run, before, after, feeds)


def test_conditions_on_shapes_are_settled(build, run, floats):
    # What torch writes for squeeze: the axis goes if its size is 1.
    feeds = {"x": floats(2, 1, 4)}
    branches = {
        name: helper.make_graph(
            [node], name, [], [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)]
        )
        for name, node in {
            "then_branch": N("Squeeze", ["h", "one"], ["b"]),
            "else_branch": N("Identity", ["h"], ["b"]),
        }.items()
    }
    nodes = [
        N("Relu", ["x"], ["h"]),
        N("Shape", ["h"], ["shape"]),
        N("Gather", ["shape", "one"], ["size"], axis=0),
        N("Equal", ["size", "one"], ["c"]),
        N("If", ["c"], ["y"], "choice", **branches),
    ]
    before = build(nodes, feeds, {"one": np.array([1])})
    after = _normal(before)
    assert _ops(after) == ["Relu", "Squeeze"]
    assert after.graph.outputs[0].name == "y"
    _check_same(run, before, after, feeds)


def test_domain_by_its_long_name(build, run, floats):
    feeds = {"x": floats(2, 3, 6, 6)}
    weights = _norm(floats, 4) | {"w": floats(4, 3, 3, 3)}
    before = build([N("Conv", ["x", "w"], ["h"]), _bn()], feeds, weights)
    for node in before.graph.node:
        node.domain = "ai.onnx"
    after = _normal(before)
    assert _ops(after) == ["Conv"]
    assert len(find_layers(after)) == 1
    _check_same(run, before, after, feeds)


def test_local_functions_are_inlined(build, run, floats):
    feeds = {"x": floats(2, 3)}
    function = helper.make_function(
        "mine", "Twice", ["a"], ["b"], [N("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 21)]
    )
    before = build([N("Twice", ["x"], ["h"], domain="mine"), N("Relu", ["h"], ["y"])], feeds)
    before.functions.append(function)
    before.graph.output[0].type.CopyFrom(before.graph.input[0].type)
    after = _normal(before)
    assert _ops(after) == ["Add", "Relu"]
    assert not after.functions
    _check_same(run, before, after, feeds)


def test_names_are_unique_and_metadata_of_the_model_stay(build, floats):
    nodes = [N("Relu", ["x"], ["a"], "same"), N("Relu", ["a"], ["b"], "same"), N("Relu", ["b"], ["y"])]
    before = build(nodes, {"x": floats(2, 3)})
    before.graph.node[0].doc_string = "stack trace " * 100
    before.metadata_props.add(key="author", value="me")
    after = _normal(before)
    names = [node.name for node in after.graph]
    assert len(set(names)) == 3
    assert all(names)
    assert after.metadata_props["author"] == "me"
    assert ir.to_proto(after).ByteSize() < 500


def test_names_of_nodes_are_unique_across_bodies(run, floats):
    feeds = {"x": floats(2, 4), "c": np.array(True)}
    branches = {
        name: helper.make_graph(
            [N(op, ["h"], [out], "same")],
            name,
            [],
            [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)],
        )
        for name, op, out in (("then_branch", "Tanh", "p"), ("else_branch", "Sin", "q"))
    }
    nodes = [N("Relu", ["x"], ["h"], "same"), N("If", ["c"], ["y"], "choice", **branches)]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    after = _normal(before)
    names = [node.name for node in ir.traversal.RecursiveGraphIterator(after.graph)]
    assert len(set(names)) == len(names) == 4
    assert after.graph[0].name == "same"
    _check_same(run, before, after, feeds)


def test_unused_tensors_go(build, floats):
    model = build(
        [N("Relu", ["x"], ["y"]), N("Neg", ["x"], ["z"])], {"x": floats(2, 3)}, {"spare": floats(50)}
    )
    after = _normal(model)
    assert _ops(after) == ["Relu"]
    assert not after.graph.initializers


def test_weights_cannot_be_written_to(resnet20):
    model = normalise(ir.load(resnet20))
    for value in model.graph.initializers.values():
        assert not value.const_value.numpy().flags.writeable


def test_gemm_attributes_stay(build, run, floats):
    feeds = {"x": floats(2, 4)}
    gemm = N("Gemm", ["x", "w", "c"], ["y"], "fc", transB=1, alpha=0.5, beta=2.0)
    before = build([gemm], feeds, {"w": floats(3, 4), "c": floats(3)})
    after = _normal(before)
    (node,) = after.graph
    assert node.attributes.get_float("alpha") == 0.5
    assert node.attributes.get_int("transB") == 1
    _check_same(run, before, after, feeds)


def test_constant_condition_leaves_one_branch(build, run, floats):
    feeds = {"x": floats(2, 3)}
    branches = {
        name: helper.make_graph(
            [N(op, ["x"], [name])], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3])]
        )
        for name, op in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    nodes = [
        N("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))),
        N("If", ["c"], ["y"], **branches),
    ]
    before = build(nodes, feeds)
    after = _normal(before)
    assert _ops(after) == ["Relu"]
    _check_same(run, before, after, feeds)
