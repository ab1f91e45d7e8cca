"""Models that do not fit one file are written as two, without a second copy in memory."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.export.model_file import data_file, file_bytes, model_bytes, write_model


def model(seed=0):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((64, 64)).astype(np.float32) for _ in range(3)]
    tensors = [numpy_helper.from_array(array, f"w{i}") for i, array in enumerate(weights)]
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(3)]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in ("x0", "x3")]
    graph = helper.make_graph(
        nodes, "g", value[:1], value[1:], [*tensors, numpy_helper.from_array(np.ones(3), "s")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_a_small_model_is_one_file_of_the_same_bytes(tmp_path):
    path, whole = tmp_path / "model.onnx", model().SerializeToString()
    assert write_model(model(), path) == len(whole) == file_bytes(path) == model_bytes(model())
    assert path.read_bytes() == whole
    assert not data_file(path).exists()


def test_a_large_model_is_two_files_that_say_the_same(tmp_path):
    path, proto = tmp_path / "model.onnx", model()
    written = write_model(proto, path, largest=10_000)
    assert written == file_bytes(path) == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert written == pytest.approx(model_bytes(model()), rel=0.2)
    assert path.stat().st_size < 2000
    onnx.checker.check_model(path, full_check=True)
    assert onnx.load(path).graph.initializer == model().graph.initializer or all(
        np.array_equal(numpy_helper.to_array(a), numpy_helper.to_array(b))
        for a, b in zip(onnx.load(path).graph.initializer, model().graph.initializer, strict=True)
    )
    feeds = {"x0": np.ones((2, 64), dtype=np.float32)}
    expected = onnxruntime.InferenceSession(model().SerializeToString()).run(None, feeds)[0]
    np.testing.assert_array_equal(onnxruntime.InferenceSession(path).run(None, feeds)[0], expected)
    # Nothing is held any more once it is written.
    assert not any(len(tensor.raw_data) > 1024 for tensor in proto.graph.initializer)


def test_a_second_file_of_before_goes_when_one_file_is_enough(tmp_path):
    path = tmp_path / "model.onnx"
    write_model(model(), path, largest=10_000)
    write_model(model(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
