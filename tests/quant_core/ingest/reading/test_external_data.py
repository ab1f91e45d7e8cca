"""External data: counted, and never read from outside the model's folder."""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from quant_core.errors import ModelError
from quant_core.ingest import normalise, read_model


@pytest.fixture
def external(convolution, tmp_path):
    """A model whose weight lies in `w.bin`, as a proto and the folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    convert_model_to_external_data(convolution, location="w.bin", size_threshold=100)
    onnx.save(convolution, folder / "m.onnx")
    return onnx.load(folder / "m.onnx", load_external_data=False), folder


def _save(proto, folder):
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return folder / "m.onnx"


def _point(proto, key, value):
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == key:
                entry.value = value


def test_sizes_add_up_and_values_arrive(external, run, floats):
    _, folder = external
    path = folder / "m.onnx"
    (folder / "unrelated.bin").write_bytes(bytes(1000))
    source = read_model(path)
    assert source.file_bytes == path.stat().st_size + (folder / "w.bin").stat().st_size
    feeds = {"x": floats(2, 3, 8, 8)}
    elsewhere = folder.parent / "normal.onnx"
    ir.save(normalise(source.model), elsewhere)
    np.testing.assert_allclose(run(path, feeds)[0], run(elsewhere, feeds)[0], rtol=1e-5)


def test_missing_file(external):
    proto, folder = external
    (folder / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"'w\.bin' of tensor 'w' is missing") as raised:
        read_model(_save(proto, folder))
    assert "as a part `files` of that name" in (raised.value.remedy or "")


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/hostname", "sub/../../w.bin", "C:\\w.bin", "..\\w.bin", ""]
)
def test_path_that_leaves_the_folder(location, external):
    proto, folder = external
    (folder.parent / "w.bin").write_bytes((folder / "w.bin").read_bytes())
    _point(proto, "location", location)
    with pytest.raises(ModelError, match="external data"):
        read_model(_save(proto, folder))


def test_symbolic_link_that_leaves_the_folder(external):
    proto, folder = external
    outside = folder.parent / "outside.bin"
    (folder / "w.bin").rename(outside)
    (folder / "w.bin").symlink_to(outside)
    with pytest.raises(ModelError, match="link out of"):
        read_model(_save(proto, folder))


def test_linked_folder_that_leaves_the_folder(external):
    proto, folder = external
    outside = folder.parent / "elsewhere"
    outside.mkdir()
    (folder / "w.bin").rename(outside / "w.bin")
    (folder / "sub").symlink_to(outside)
    _point(proto, "location", "sub/w.bin")
    with pytest.raises(ModelError, match="link out of"):
        read_model(_save(proto, folder))


def test_hard_link_and_device(external):
    proto, folder = external
    os.link(folder / "w.bin", folder.parent / "second name")
    with pytest.raises(ModelError, match="regular file"):
        read_model(_save(proto, folder))
    (folder / "w.bin").unlink()
    os.mkfifo(folder / "w.bin")
    with pytest.raises(ModelError, match="regular file"):
        read_model(_save(proto, folder))


def test_loop_of_links(external):
    proto, folder = external
    (folder / "w.bin").unlink()
    (folder / "w.bin").symlink_to(folder / "w.bin")
    with pytest.raises(ModelError, match="missing"):
        read_model(_save(proto, folder))


@pytest.mark.parametrize(
    ("key", "value"),
    [("offset", "4096"), ("offset", "-4"), ("length", "8"), ("length", "9" * 30), ("offset", "1e3")],
)
def test_range_outside_the_file(key, value, external):
    proto, folder = external
    _point(proto, key, value)
    with pytest.raises(ModelError):
        read_model(_save(proto, folder))


def test_external_file_cut_short(external):
    proto, folder = external
    (folder / "w.bin").write_bytes((folder / "w.bin").read_bytes()[:100])
    with pytest.raises(ModelError, match="100 bytes"):
        read_model(_save(proto, folder))


@pytest.mark.parametrize("place", ["constant", "branch", "function"])
def test_references_of_constants_and_inner_graphs_are_checked_too(place, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(8))
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[2])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    ends = [onnx.helper.make_tensor_value_info(name, 1, [2]) for name in "xy"]
    constant = onnx.NodeProto(op_type="Constant", output=["w"])
    constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
    add = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    nodes, functions = [constant, add], []
    imports = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("local", 1)]
    if place == "branch":
        body = onnx.helper.make_graph([add], "body", [], ends[1:], [tensor])
        yes = onnx.helper.make_node(
            "Constant", [], ["yes"], value=onnx.helper.make_tensor("t", 9, [], [True])
        )
        nodes = [yes, onnx.helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body)]
    elif place == "function":
        functions = [onnx.helper.make_function("local", "f", ["x"], ["y"], nodes, imports[:1])]
        nodes = [onnx.helper.make_node("f", ["x"], ["y"], domain="local")]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:])
    proto = onnx.helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=10)
    with pytest.raises(ModelError, match="outside the model's folder"):
        read_model(_save(proto, folder))


def test_location_with_a_zero_byte(external):
    proto, folder = external
    _point(proto, "location", "w.bin\0.txt")
    with pytest.raises(ModelError, match="without a usable location"):
        read_model(_save(proto, folder))
