"""Normalising changes the form of a graph and never what it computes."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.ingest import find_layers, normalise, read_model
from tests.quant_core.ingest.normalised import N, bn, check_same, norm, normal, ops


def test_resnet20(resnet20, images, run):
    source = read_model(resnet20)
    before = [tensor.name for tensor in source.model.graph.initializers.values()]
    model = normalise(source.model)
    feeds = {"input": images[:16]}
    check_same(run, resnet20, model, feeds)
    assert set(ops(model)) == {"Conv", "Relu", "Add", "GlobalAveragePool", "Flatten", "Gemm"}
    assert len(find_layers(model)) == 22
    assert model.graph.inputs[0].shape[0] == source.model.graph.inputs[0].shape[0]
    assert model.graph.outputs[0].name == "logits"
    # The source is left as it was, values and all.
    assert [tensor.name for tensor in source.model.graph.initializers.values()] == before
    check_same(run, resnet20, source.model, feeds, rtol=0)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_resnet20_as_external_data(resnet20, images, run, tmp_path):
    ir.save(ir.load(resnet20), tmp_path / "m.onnx", external_data="m.data")
    source = read_model(tmp_path / "m.onnx")
    assert source.file_bytes > 0.9 * resnet20.stat().st_size
    ir.save(normalise(source.model), tmp_path / "n.onnx")
    check_same(run, resnet20, tmp_path / "n.onnx", {"input": images[:4]})


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
    after = normal(before)
    assert ops(after) == ["Relu"]
    assert after.graph.outputs[0].name == "y"
    check_same(run, before, after, feeds)


def test_identity_from_input_to_output_stays(build, run, floats):
    feeds = {"x": floats(2, 3)}
    before = build([N("Identity", ["x"], ["y"])], feeds)
    check_same(run, before, normal(before), feeds)


def test_two_outputs_of_one_tensor(build, run, floats):
    feeds = {"x": floats(2, 3)}
    nodes = [N("Relu", ["x"], ["y"]), N("Identity", ["y"], ["z"])]
    before = build(nodes, feeds, outputs=("y", "z"))
    after = normal(before)
    assert [value.name for value in after.graph.outputs] == ["y", "z"]
    check_same(run, before, after, feeds)


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
    check_same(run, before, normal(before), feeds)


def test_constant_as_output(build, run, floats):
    feeds = {"x": floats(2, 3)}
    nodes = [N("Constant", [], ["z"], value_floats=[1.0, 2.0]), N("Relu", ["x"], ["y"])]
    before = build(nodes, feeds, outputs=("y", "z"))
    check_same(run, before, normal(before), feeds)


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
    check_same(run, before, normal(noted), {"x": floats(5, 3, 4)})


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
    after = normal(before)
    assert ops(after) == ["Relu", "Squeeze"]
    assert after.graph.outputs[0].name == "y"
    check_same(run, before, after, feeds)


def test_domain_by_its_long_name(build, run, floats):
    feeds = {"x": floats(2, 3, 6, 6)}
    weights = norm(floats, 4) | {"w": floats(4, 3, 3, 3)}
    before = build([N("Conv", ["x", "w"], ["h"]), bn()], feeds, weights)
    for node in before.graph.node:
        node.domain = "ai.onnx"
    after = normal(before)
    assert ops(after) == ["Conv"]
    assert len(find_layers(after)) == 1
    check_same(run, before, after, feeds)


def test_local_functions_are_inlined(build, run, floats):
    feeds = {"x": floats(2, 3)}
    function = helper.make_function(
        "mine", "Twice", ["a"], ["b"], [N("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 21)]
    )
    before = build([N("Twice", ["x"], ["h"], domain="mine"), N("Relu", ["h"], ["y"])], feeds)
    before.functions.append(function)
    before.graph.output[0].type.CopyFrom(before.graph.input[0].type)
    after = normal(before)
    assert ops(after) == ["Add", "Relu"]
    assert not after.functions
    check_same(run, before, after, feeds)


def test_names_are_unique_and_metadata_of_the_model_stay(build, floats):
    nodes = [N("Relu", ["x"], ["a"], "same"), N("Relu", ["a"], ["b"], "same"), N("Relu", ["b"], ["y"])]
    before = build(nodes, {"x": floats(2, 3)})
    before.graph.node[0].doc_string = "stack trace " * 100
    before.metadata_props.add(key="author", value="me")
    after = normal(before)
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
    after = normal(before)
    names = [node.name for node in ir.traversal.RecursiveGraphIterator(after.graph)]
    assert len(set(names)) == len(names) == 4
    assert after.graph[0].name == "same"
    check_same(run, before, after, feeds)


def test_unused_tensors_go(build, floats):
    model = build(
        [N("Relu", ["x"], ["y"]), N("Neg", ["x"], ["z"])], {"x": floats(2, 3)}, {"spare": floats(50)}
    )
    after = normal(model)
    assert ops(after) == ["Relu"]
    assert not after.graph.initializers


def test_a_lack_of_memory_is_no_fault_of_the_model(build, floats, monkeypatch):
    def no_room(_):
        raise MemoryError

    monkeypatch.setattr(import_module("quant_core.ingest.normalise"), "passes", lambda: [no_room])
    with pytest.raises(MemoryError):
        normalise(ir.from_proto(build([N("Relu", ["x"], ["y"])], {"x": floats(2, 3)})))


def test_weights_cannot_be_written_to(resnet20):
    model = normalise(ir.load(resnet20))
    for value in model.graph.initializers.values():
        assert not value.const_value.numpy().flags.writeable


def test_gemm_attributes_stay(build, run, floats):
    feeds = {"x": floats(2, 4)}
    gemm = N("Gemm", ["x", "w", "c"], ["y"], "fc", transB=1, alpha=0.5, beta=2.0)
    before = build([gemm], feeds, {"w": floats(3, 4), "c": floats(3)})
    after = normal(before)
    (node,) = after.graph
    assert node.attributes.get_float("alpha") == 0.5
    assert node.attributes.get_int("transB") == 1
    check_same(run, before, after, feeds)


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
    after = normal(before)
    assert ops(after) == ["Relu"]
    check_same(run, before, after, feeds)
