from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quant_core.errors import ModelError, SamplesError
from quant_core.verification import choose_batch, fixed_batch, open_session, run_batches


def save(path, batch, *, second=None):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])]
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Size", ["x"], ["size"])]
    if second is not None:
        inputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [second, 3]))
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3]),
        helper.make_tensor_value_info("size", TensorProto.INT64, []),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("prescribed", "asked", "sizes"), [("N", 4, [4, 4, 2]), ("N", None, [10]), (4, 7, [4, 4, 2])]
)
def test_all_samples_come_back_in_order(tmp_path, prescribed, asked, sizes):
    session = open_session(save(tmp_path / "m.onnx", prescribed), threads=1)
    samples = np.arange(30, dtype=np.float32).reshape(10, 3)
    parts, answers = zip(*run_batches(session, {"x": samples}, asked), strict=True)
    assert [part.stop - part.start for part in parts] == sizes
    assert np.array_equal(np.concatenate([answer["y"] for answer in answers]), -samples)
    assert fixed_batch(session) == (prescribed if isinstance(prescribed, int) else None)
    if isinstance(prescribed, int):  # the graph really was fed whole batches
        assert {int(answer["size"]) for answer in answers} == {prescribed * 3}


def test_large_samples_are_sent_in_smaller_batches(tmp_path):
    session = open_session(save(tmp_path / "m.onnx", "N"), threads=1)
    assert choose_batch(session, {"x": np.zeros((9, 2**20), np.float32)}) == 2
    assert choose_batch(session, {"x": np.zeros((9, 2**23), np.float32)}) == 1
    assert choose_batch(session, {"x": np.zeros((9, 3), np.float32)}) == 64


def test_a_file_that_does_not_load_is_named(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"^broken\.onnx: onnxruntime"):
        open_session(path)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "lack the graph input"),
        ({"x": np.zeros((0, 3), np.float32)}, "hold none"),
        ({"x": np.zeros((2, 4), np.float32)}, "refuses the samples"),
        ({"x": np.zeros((2, 3), np.float64)}, "refuses the samples"),
    ],
)
def test_samples_that_do_not_fit_are_refused(tmp_path, inputs, message):
    session = open_session(save(tmp_path / "m.onnx", "N"), threads=1)
    with pytest.raises(SamplesError, match=message):
        list(run_batches(session, inputs))


def test_inputs_of_different_length_are_refused(tmp_path):
    session = open_session(save(tmp_path / "m.onnx", "N", second="N"), threads=1)
    with pytest.raises(SamplesError, match="x has 2, z has 3"):
        list(run_batches(session, {"x": np.zeros((2, 3), np.float32), "z": np.zeros((3, 3), np.float32)}))


def test_two_prescribed_batches_are_refused(tmp_path):
    session = open_session(save(tmp_path / "m.onnx", 2, second=3), threads=1)
    with pytest.raises(ModelError, match="x has 2, z has 3"):
        fixed_batch(session)
