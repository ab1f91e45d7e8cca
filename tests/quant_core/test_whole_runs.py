"""A streaming network, no axis of whose inputs counts samples, is quantized by whole runs."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.artifacts import MODEL
from quant_core.debugging import debug
from quant_core.errors import SamplesError
from quant_core.pipeline import quantize
from quant_core.preflight import inspect_model
from quant_core.spec import QuantizeSpec

SPEC = QuantizeSpec.model_validate({"effective_bits": 8, "effort": "fast", "device": "cpu"})
RUNS = 16


def one_run(runs, index):
    return {name: np.asarray(array[index]) for name, array in runs.items()}


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """An LSTM that goes on from a state of `[1, batch, units]`, and a rate that is one number."""
    folder, generator = tmp_path_factory.mktemp("stream"), np.random.default_rng(0)

    def draw(*shape):
        return generator.standard_normal(shape).astype(np.float32) / 6

    weights = {"w": draw(1, 128, 24), "r": draw(1, 128, 32), "m": draw(32, 10), "first": np.array([0])}
    nodes = [
        helper.make_node("Mul", ["x", "rate"], ["fast"]),
        helper.make_node(
            "LSTM", ["fast", "w", "r", "", "", "h", "c"], ["all", "hn", "cn"], "lstm", hidden_size=32
        ),
        helper.make_node("Squeeze", ["hn", "first"], ["last"]),
        helper.make_node("MatMul", ["last", "m"], ["y"], "head"),
    ]
    state = [1, "n", 32]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, "n", 24]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, state) for name in "hc"),
            helper.make_tensor_value_info("rate", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, state) for name in ("hn", "cn")),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = folder / "stream.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    runs = {"x": draw(RUNS, 5, 1, 24), "h": draw(RUNS, 1, 1, 32), "c": draw(RUNS, 1, 1, 32)}
    runs["rate"] = generator.uniform(4, 8, RUNS).astype(np.float32)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    answers = [session.run(None, one_run(runs, k)) for k in range(RUNS)]
    np.savez(folder / "runs.npz", **runs)
    report = quantize(model, folder / "runs.npz", SPEC, folder / "out")
    return folder, runs, answers, report


def test_the_file_takes_and_gives_what_the_float_model_does(stream):
    folder, runs, answers, report = stream
    session = ort.InferenceSession(folder / "out" / MODEL, providers=["CPUExecutionProvider"])
    declared = {entry.name: entry.shape for entry in session.get_inputs()}
    assert declared == {"x": [5, "n", 24], "h": [1, "n", 32], "c": [1, "n", 32], "rate": []}
    for k, wanted in enumerate(answers):
        found = session.run(None, one_run(runs, k))
        for expected, value in zip(wanted, found, strict=True):
            assert value.shape == expected.shape
            assert np.square(value - expected).sum() < 1e-3 * np.square(expected).sum()
    assert {layer.name for layer in report.layers} == {"lstm.W", "lstm.R", "head"}
    assert any("whole run" in warning for warning in report.warnings)


def test_the_report_tells_the_bytes_of_the_file(stream):
    folder, *_, report = stream
    assert report.model.quantized_bytes == (folder / "out" / MODEL).stat().st_size
    assert report.model.ratio == report.model.quantized_bytes / (folder / "stream.onnx").stat().st_size
    assert (
        abs(report.model.predicted_bytes - report.model.quantized_bytes) < 0.02 * report.model.quantized_bytes
    )


def test_other_ways_in_take_whole_runs_too(stream):
    folder, *_ = stream
    found = debug(folder / "stream.onnx", folder / "out", folder / "runs.npz")
    assert {layer.name for layer in found.layers} == {"lstm.W", "lstm.R", "head"}
    seen = inspect_model(folder / "stream.onnx", folder / "runs.npz")
    assert [entry.shape for entry in seen.inputs][-1] == ()
    assert seen.batch.handling == "unclear"
    assert "whole runs" in (seen.batch.reason or "")


def test_samples_that_cannot_count_are_told_of_whole_runs(stream, tmp_path):
    folder, runs, *_ = stream
    np.savez(tmp_path / "one.npz", **one_run(runs, 0))
    with pytest.raises(SamplesError, match="scalar") as told:
        quantize(folder / "stream.onnx", tmp_path / "one.npz", SPEC, tmp_path / "out")
    assert "whole runs" in told.value.remedy


def test_labels_are_refused(stream, tmp_path):
    folder, runs, *_ = stream
    np.savez(tmp_path / "runs.npz", labels=np.zeros(RUNS, np.int64), **runs)
    with pytest.raises(SamplesError, match="whole run"):
        quantize(folder / "stream.onnx", tmp_path / "runs.npz", SPEC, tmp_path / "out")
