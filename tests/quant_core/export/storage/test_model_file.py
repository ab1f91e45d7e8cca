"""Models that do not fit one file are written as two, without a second copy in memory."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.export.storage.held_back import Exported
from quant_core.export.storage.model_file import data_file, file_bytes, model_bytes, write_model
from quant_core.export.writing.exporter import export_parts
from quant_core.spec import FLOAT_BITS
from tests.quant_core.export.networks import Net


def model():
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((64, 64)).astype(np.float32) for _ in range(3)]
    tensors = [numpy_helper.from_array(array, f"w{i}") for i, array in enumerate(weights)]
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(3)]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in ("x0", "x3")]
    graph = helper.make_graph(
        nodes, "g", value[:1], value[1:], [*tensors, numpy_helper.from_array(np.ones(3), "s")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def exported(held_back):
    """The model with one of its tensors left in the float model it came from, or with none."""
    proto, kept = model(), {}
    for tensor in proto.graph.initializer:
        if held_back and tensor.name == "w1":
            kept["w1"] = ir.tensor(numpy_helper.to_array(tensor).copy())
            tensor.ClearField("raw_data")
    return Exported(proto, kept)


@pytest.mark.parametrize("held_back", [False, True])
def test_a_small_model_is_one_file_of_the_same_bytes(held_back, tmp_path):
    path, whole = tmp_path / "model.onnx", model().SerializeToString()
    assert model_bytes(exported(held_back)) == pytest.approx(len(whole), abs=8)
    assert write_model(exported(held_back), path) == len(whole) == file_bytes(path)
    assert path.read_bytes() == whole
    assert not data_file(path).exists()


@pytest.mark.parametrize("held_back", [False, True])
def test_a_large_model_is_two_files_that_say_the_same(held_back, tmp_path):
    path, parts = tmp_path / "model.onnx", exported(held_back)
    written = write_model(parts, path, largest=10_000)
    assert written == file_bytes(path) == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert written == pytest.approx(model_bytes(exported(held_back)), rel=0.2)
    assert path.stat().st_size < 2000
    onnx.checker.check_model(path, full_check=True)
    for found, given in zip(onnx.load(path).graph.initializer, model().graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(found), numpy_helper.to_array(given))
    feeds = {"x0": np.ones((2, 64), dtype=np.float32)}
    expected = onnxruntime.InferenceSession(model().SerializeToString()).run(None, feeds)[0]
    np.testing.assert_array_equal(onnxruntime.InferenceSession(path).run(None, feeds)[0], expected)


def test_a_second_file_of_before_goes_when_one_file_is_enough(tmp_path):
    path = tmp_path / "model.onnx"
    write_model(exported(True), path, largest=10_000)
    write_model(exported(True), path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


LARGE = (
    """<ir_version: 10, opset_import: ["" : 21]>
    g (float[n,600] x) => (float[n,600] y) { a = MatMul(x, w1)  y = MatMul(a, w2) }""",
    {"w1": (600, 600), "w2": (600, 600)},
    set(),
    {},
)


@pytest.mark.parametrize("widths", [(4, FLOAT_BITS), (FLOAT_BITS, 2), (8, 4), (FLOAT_BITS, FLOAT_BITS)])
def test_tensors_above_a_megabyte_are_what_they_were_in_one_file_and_in_two(widths, tmp_path):
    net, path = Net(LARGE), tmp_path / "model.onnx"
    plan = {layer.name: bits for layer, bits in zip(net.layers, widths, strict=True)}
    placement, file, simulated = net.export(plan, 8, path)
    assert np.abs(net.run(path) - simulated).max() <= 0.03 * np.abs(simulated).max()
    stored = {tensor.name: tensor for tensor in file.graph.initializer}
    assert [len(stored[name].raw_data) for name in ("w1", "w2")] == [600 * 600 * bits // 8 for bits in widths]
    parts = export_parts(net.model, net.layers, net.weights, placement, net.grids)
    assert model_bytes(parts) == pytest.approx(file.ByteSize(), abs=16)
    assert write_model(parts, path, largest=1000) == file_bytes(path) < file.ByteSize() + 20_000
    assert np.abs(net.run(path) - simulated).max() <= 0.03 * np.abs(simulated).max()
