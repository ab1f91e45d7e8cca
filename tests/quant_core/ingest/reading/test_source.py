"""Every kind of file that is not a float ONNX model gets one clear error."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from quant_core.errors import AlreadyQuantizedError, ModelError, UnsupportedOperatorError
from quant_core.ingest import read_model


def test_reads_a_real_model(resnet20):
    source = read_model(resnet20)
    assert source.file_bytes == resnet20.stat().st_size
    assert [value.name for value in source.model.graph.inputs] == ["input"]


class Tripwire:
    """Unpickling this would raise."""

    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


def _torch_zip() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, buffer)
    return buffer.getvalue()


def _torch_script() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/code/__torch__.py", "")
        archive.writestr("model/data.pkl", pickle.dumps(Tripwire()))
        archive.writestr("model/constants.pkl", b"")
    return buffer.getvalue()


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros(3))
    return buffer.getvalue()


FOREIGN = {
    "pickle": (pickle.dumps(Tripwire(), protocol=4), "pickle"),
    "old pickle": (pickle.dumps(Tripwire(), protocol=0), "not an ONNX file"),
    "torch": (_torch_zip(), "PyTorch"),
    "torchscript": (_torch_script(), "TorchScript"),
    "npz": (_npz(), "npz"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(64), "TensorFlow Lite"),
    "safetensors": ((16).to_bytes(8, "little") + b'{"w":{}}        ', "safetensors"),
    "text": (b"hello, I am a model\n" * 20, "not an ONNX file"),
    "zeros": (bytes(1000), "not an ONNX file"),
    "json": (b'{"graph": {}}', "not an ONNX file"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not an ONNX file"),
    "empty": (b"", "empty"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_file_is_named_and_never_opened(kind, tmp_path):
    content, words = FOREIGN[kind]
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert words in caught.value.message
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        read_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="folder"):
        read_model(tmp_path)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.37, 0.5, 0.9, 0.99, 0.9999])
def test_truncated_file_is_refused(share, resnet20, tmp_path):
    content = resnet20.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError):
        read_model(path)


def test_random_damage_never_ends_in_anything_but_a_model_error(convolution, tmp_path):
    content = bytearray(convolution.SerializeToString())
    generator = np.random.default_rng(0)
    path = tmp_path / "damaged.onnx"
    refused = 0
    for _ in range(300):
        damaged = content.copy()
        for position in generator.integers(0, len(content), 3):
            damaged[position] = generator.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read_model(path)
        except ModelError:
            refused += 1
    assert refused > 100


def test_opset_beyond_the_runtime(convolution, save):
    convolution.opset_import[0].version = 27
    with pytest.raises(ModelError, match="opset 27"):
        read_model(save(convolution))


def test_file_format_beyond_the_runtime(convolution, save, run, floats):
    convolution.ir_version = 13
    assert run(convolution, {"x": floats(2, 3, 8, 8)})
    assert read_model(save(convolution)).file_bytes > 0
    convolution.ir_version = 14
    with pytest.raises(ModelError, match="version 14"):
        read_model(save(convolution))


@pytest.mark.parametrize("opset", [1, 6])
def test_opset_before_the_runtime(opset, convolution, save):
    convolution.opset_import[0].version = opset
    with pytest.raises(ModelError, match=f"opset {opset}"):
        read_model(save(convolution))


def test_no_opset(convolution, save):
    del convolution.opset_import[:]
    with pytest.raises(ModelError, match="operator set"):
        read_model(save(convolution))


def test_graph_without_input(build, floats, save):
    model = build([helper.make_node("Relu", ["w"], ["y"])], {}, {"w": floats(3)})
    with pytest.raises(ModelError, match="no input"):
        read_model(save(model))


def test_graph_without_output(convolution, save):
    del convolution.graph.output[:]
    with pytest.raises(ModelError, match="no output"):
        read_model(save(convolution))


def test_output_that_is_an_input(convolution, save):
    convolution.graph.output.add().CopyFrom(convolution.graph.input[0])
    name = convolution.graph.input[0].name
    with pytest.raises(ModelError, match=f"output '{name}' is a graph input") as told:
        read_model(save(convolution))
    assert "Leave it out" in told.value.remedy


def test_output_that_is_no_tensor(build, floats, save):
    model = build([helper.make_node("SequenceConstruct", ["x", "x"], ["y"])], {"x": floats(2, 4)})
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None))
    with pytest.raises(ModelError, match="output 'y' is a sequence"):
        read_model(save(model))


def test_broken_specification_names_the_node(convolution, save):
    convolution.graph.node[0].input.extend(["x", "x", "x"])
    with pytest.raises(ModelError, match="conv"):
        read_model(save(convolution))


def test_dangling_input_is_refused(convolution, save):
    convolution.graph.node[0].input[1] = "nowhere"
    with pytest.raises(ModelError, match="nowhere"):
        read_model(save(convolution))


def test_who_reads_what_is_not_there_is_named(convolution, save):
    node = convolution.graph.node[-1]
    node.name, node.input[0] = "reader", "nothing"
    with pytest.raises(
        ModelError, match=rf"node 'reader' \({node.op_type}\) reads 'nothing', which nothing before it"
    ):
        read_model(save(convolution))


def test_all_unknown_operators_are_named_at_once(build, floats, save):
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"]),
        helper.make_node("Twist", ["a"], ["b"], domain="my.domain"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    with pytest.raises(UnsupportedOperatorError) as caught:
        read_model(save(build(nodes, {"x": floats(2, 3)})))
    assert "Frobnicate" in caught.value.message
    assert "Twist (my.domain" in caught.value.message
    assert "Relu" not in caught.value.message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_weight_is_named(value, convolution, save):
    weight = onnx.numpy_helper.to_array(convolution.graph.initializer[0]).copy()
    weight[1, 2, 0, 1] = value
    convolution.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    with pytest.raises(ModelError, match="'w'"):
        read_model(save(convolution))


def test_non_finite_weight_behind_identity_and_constant(build, floats, save):
    bad = floats(3, 4)
    bad[0, 0] = np.inf
    nodes = [
        helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(bad)),
        helper.make_node("Identity", ["c"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    with pytest.raises(ModelError, match="'c'"):
        read_model(save(build(nodes, {"x": floats(2, 3)})))


def test_infinity_in_a_mask_is_no_weight(build, floats, save):
    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    model = build([helper.make_node("Add", ["x", "mask"], ["y"])], {"x": floats(2, 4, 4)}, {"mask": mask})
    assert read_model(save(model)).file_bytes > 0


def test_size_that_does_not_match_the_dimensions(convolution, save):
    # A claim of 4 TB must be refused from the header, without allocating.
    convolution.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]
    with pytest.raises(ModelError, match=r"'w' of shape \[1048576, 1048576\]"):
        read_model(save(convolution))


def test_negative_dimension(convolution, save):
    convolution.graph.initializer[0].dims[:] = [4, -3, -3, 3]
    with pytest.raises(ModelError, match="negative"):
        read_model(save(convolution))


def test_size_of_a_tensor_inside_an_attribute(build, floats, save):
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [2], [1.0, 2.0])
    tensor.dims[:] = [1 << 40]
    nodes = [
        helper.make_node("Constant", [], ["c"], value=tensor),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    with pytest.raises(ModelError, match="needs"):
        read_model(save(build(nodes, {"x": floats(2, 3)})))


@pytest.mark.parametrize("levels", [17, 60])
def test_absurd_nesting(levels, tmp_path):
    leaf = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "leaf",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(leaf, opset_imports=[helper.make_opsetid("", 21)])
    del model.graph.node[:]
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]))
    graph = model.graph
    for _ in range(levels):
        node = graph.node.add(op_type="If", input=["x"], output=["y"])
        node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.CopyFrom(leaf)
        branch = node.attribute.add(name="else_branch", type=onnx.AttributeProto.GRAPH)
        branch.g.output.extend(leaf.output)
        graph = branch.g
    path = tmp_path / "nested.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError):
        read_model(path)


QUANTIZED = {
    "QuantizeLinear": helper.make_node("QuantizeLinear", ["x", "s"], ["y"], "q"),
    "MatMulInteger": helper.make_node("MatMulInteger", ["x", "s"], ["y"], "q"),
    "MatMulNBits": helper.make_node("MatMulNBits", ["x", "s"], ["y"], "q", domain="com.microsoft"),
    "QLinearConv": helper.make_node("QLinearConv", ["x"] * 8, ["y"], "q"),
    "QAttention": helper.make_node("QAttention", ["x"] * 5, ["y"], "q", domain="com.microsoft"),
    "DynamicQuantizeLinear": helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "a", "b"], "q"),
    "GatherBlockQuantized": helper.make_node(
        "GatherBlockQuantized", ["x"] * 3, ["y"], "q", domain="com.microsoft"
    ),
    "ConvInteger": helper.make_node("ConvInteger", ["x", "s"], ["y"], "q"),
    "MatMulIntegerToFloat": helper.make_node(
        "MatMulIntegerToFloat", ["x"] * 4, ["y"], "q", domain="com.microsoft"
    ),
}


@pytest.mark.parametrize("op", QUANTIZED)
def test_quantized_operator_is_named(op, build, floats, save):
    with pytest.raises(AlreadyQuantizedError, match=f"{op} 'q'"):
        read_model(save(build([QUANTIZED[op]], {"x": floats(2, 3)}, {"s": np.float32(1)})))


def test_low_bit_weight_is_named(build, floats, save):
    model = build([helper.make_node("Cast", ["w"], ["y"], to=1)], {"x": floats(2, 3)})
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.INT4, [4], b"\x12\x34", raw=True))
    with pytest.raises(AlreadyQuantizedError, match="packed at 4 bits: tensor 'w'"):
        read_model(save(model))


@pytest.mark.parametrize("op", ["LayerNormalization", "Quick"])
def test_harmless_names_are_not_taken_for_quantized(op, convolution, save):
    convolution.graph.node[0].name = f"{op}QuantizeLinear"
    assert read_model(save(convolution)).file_bytes > 0


def test_path_may_be_text(resnet20):
    assert read_model(str(resnet20)).path == Path(resnet20)


def test_sparse_initializer(convolution, save):
    sparse = convolution.graph.sparse_initializer.add()
    sparse.values.CopyFrom(helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0]))
    sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [1], [0]))
    sparse.dims[:] = [1 << 40]
    with pytest.raises(ModelError, match="sparse"):
        read_model(save(convolution))


def test_sparse_constant(build, floats, save):
    values = helper.make_tensor("", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("", TensorProto.INT64, [1], [0])
    sparse = helper.make_sparse_tensor(values, indices, [1 << 20, 1 << 20])
    nodes = [
        helper.make_node("Constant", [], ["w"], sparse_value=sparse),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    model = build(nodes, {"x": floats(1, 4)})
    with pytest.raises(ModelError, match="sparse tensors"):
        read_model(save(model))


def test_constants_of_the_same_name_are_harmless(build, floats, save, run):
    """As spox writes them; onnxruntime makes initializers of them before it looks at names."""
    values = [helper.make_tensor("", TensorProto.FLOAT, [1], [number]) for number in (2.0, 3.0)]
    nodes = [
        helper.make_node("Constant", [], [f"c{k}"], "anon", value=value) for k, value in enumerate(values)
    ]
    nodes += [helper.make_node("Mul", ["x", "c0"], ["h"]), helper.make_node("Mul", ["h", "c1"], ["y"])]
    feeds = {"x": floats(2, 3)}
    path = save(build(nodes, feeds))
    assert read_model(path).model.graph.num_nodes() == 4
    np.testing.assert_allclose(run(path, feeds)[0], 6 * feeds["x"], rtol=1e-6)


def test_nodes_of_the_same_name(convolution, save):
    convolution.graph.node.add().CopyFrom(convolution.graph.node[0])
    convolution.graph.node[-1].output[0] = "another"
    for node in convolution.graph.node:
        node.name = "twin"
    with pytest.raises(ModelError, match="the same name 'twin'") as told:
        read_model(save(convolution))
    assert "a name of its own" in told.value.remedy
