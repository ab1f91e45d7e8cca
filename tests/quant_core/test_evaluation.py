from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.errors import ModelError, SamplesError
from quant_core.evaluation import evaluate

DEMO = Path(__file__).parents[2] / "benchmarks" / "data"


def save(path: Path, weight: np.ndarray, *, quantized: bool = False, batch: int | str = "N") -> Path:
    """A linear classifier; quantized, its weights are eight-bit codes behind a DequantizeLinear."""
    scale = np.float32(np.abs(weight).max() / 127)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["logits"])]
    initializers = [numpy_helper.from_array(weight.astype(np.float32), "w")]
    if quantized:
        codes = np.rint(weight / scale).astype(np.int8)
        initializers = [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(scale, "scale")]
        nodes.insert(0, helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, weight.shape[0]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, weight.shape[1]])],
        initializers,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("batch", ["N", 4])
def test_accuracy_is_what_numpy_counts(tmp_path, quantized, batch):
    random = np.random.default_rng(0)
    weight, samples = random.standard_normal((6, 5)), random.standard_normal((200, 6)).astype(np.float32)
    labels = np.where(random.random(200) < 0.7, (samples @ weight).argmax(1), 0)
    np.savez(tmp_path / "data.npz", x=samples, labels=labels)
    path = save(tmp_path / "m.onnx", weight, quantized=quantized, batch=batch)
    stored = np.rint(weight / (np.abs(weight).max() / 127)) if quantized else weight
    found = evaluate(path, tmp_path / "data.npz", threads=1)
    assert found.value == np.mean((samples @ stored).argmax(1) == labels)
    assert (found.model, found.metric, found.samples, found.threads) == ("m.onnx", "top1", 200, 1)
    assert found.batch == (4 if batch == 4 else 64)
    assert found.seconds > 0
    assert found.batch_latency_ms > 0


def test_the_demo_model_knows_its_calibration_images():
    found = evaluate(DEMO / "resnet20_cifar10.onnx", DEMO / "cifar10_calibration.npz", threads=1)
    assert found.samples == 512
    assert found.value > 0.95  # images it was trained on


def test_without_labels_there_is_no_metric(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 3), np.float32))
    with pytest.raises(SamplesError, match=r"data\.npz: .*no labels.* Add an array named labels"):
        evaluate(save(tmp_path / "m.onnx", np.eye(3)), tmp_path / "data.npz")


def test_labels_need_class_logits(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 3, 3), np.float32), labels=np.zeros(4, int))
    path = save(tmp_path / "m.onnx", np.eye(3))
    model = onnx.load(path)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim.add().dim_value = 3
    onnx.save(model, path)
    with pytest.raises(SamplesError, match="labels"):
        evaluate(path, tmp_path / "data.npz")


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x80\x04\x95pickle"])
def test_what_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 3), np.float32), labels=np.zeros(4, int))
    with pytest.raises(ModelError, match=r"m\.onnx"):
        evaluate(path, tmp_path / "data.npz")
    with pytest.raises(ModelError, match="absent"):
        evaluate(tmp_path / "absent.onnx", tmp_path / "data.npz")


def test_external_data_must_lie_beside_the_model(tmp_path):
    path = save(tmp_path / "m.onnx", np.eye(3))
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../outside.bin")
    onnx.save(model, path)
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 3), np.float32), labels=np.zeros(4, int))
    with pytest.raises(ModelError, match="outside"):
        evaluate(path, tmp_path / "data.npz")


def test_the_output_that_answers_is_found(tmp_path):
    random = np.random.default_rng(0)
    weight, samples = random.standard_normal((6, 5)), random.standard_normal((50, 6)).astype(np.float32)
    path = save(tmp_path / "m.onnx", weight)
    proto = onnx.load(path)
    proto.graph.node.append(helper.make_node("ArgMax", ["logits"], ["label"], axis=-1, keepdims=0))
    numbers = helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])
    embedding = helper.make_tensor_value_info("x2", TensorProto.FLOAT, ["N", 6])
    proto.graph.node.append(helper.make_node("Neg", ["x"], ["x2"]))
    np.savez(tmp_path / "data.npz", x=samples, labels=(samples @ weight).argmax(1))
    logits = proto.graph.output.pop()
    for answer in (logits, numbers):
        del proto.graph.output[:]
        proto.graph.output.extend([embedding, answer])
        onnx.save(proto, path)
        assert evaluate(path, tmp_path / "data.npz", threads=1).value == 1.0
