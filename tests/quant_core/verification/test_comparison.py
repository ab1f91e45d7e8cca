from __future__ import annotations

import numpy as np
import pytest

from quant_core.errors import InternalError, ModelError
from quant_core.verification import SimulationCheck, compare, sqnr_db


@pytest.fixture
def pair(tmp_path, new_graph):
    graph = new_graph()
    graph.node("MatMul", [graph.quantized("x", 0.03, 128), graph.weight("w", (16, 8), 1)], "m", name="proj")
    graph.node("Identity", [graph.quantized("m", 0.02, 128)], "y")
    quantized = graph.save(tmp_path / "quantized.onnx", {"x": ["N", 16]}, {"y": ["N", 8]})
    codes = np.frombuffer(graph.initializers["w"].raw_data, np.uint8)
    nibbles = np.stack([codes & 15, codes >> 4], axis=1).reshape(16, 8).astype(np.int8)
    weight = np.where(nibbles > 7, nibbles - 16, nibbles) * np.float32(0.02)
    graph = new_graph()
    graph.node("MatMul", ["x", graph.constant("w", weight)], "y")
    return graph.save(tmp_path / "float.onnx", {"x": ["N", 16]}, {"y": ["N", 8]}), quantized, weight


def test_the_files_are_compared_as_numpy_computes_them(pair):
    float_path, quantized_path, weight = pair
    samples = np.random.default_rng(3).standard_normal((50, 16)).astype(np.float32)
    expected = samples.astype(float) @ weight.astype(float)
    codes = np.clip(np.rint(samples / np.float32(0.03)) + 128, 0, 255) - 128
    returned = (
        np.clip(np.rint((codes * 0.03) @ weight.astype(float) / 0.02) + 128, 0, 255) * 0.02 - 128 * 0.02
    )
    labels = expected.argmax(1)
    metrics = compare(
        float_path, quantized_path, {"x": samples}, classes=True, labels=labels, batch=7, threads=1
    )
    assert metrics.float_ == 1.0
    assert metrics.quantized == metrics.top1_agreement == np.mean(returned.argmax(1) == labels)
    noise = np.sum((expected - returned) ** 2)
    assert metrics.sqnr_db == pytest.approx(sqnr_db(np.sum(expected**2), noise), abs=0.1)


def test_a_broken_result_is_our_fault_and_a_broken_model_the_users(pair, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    samples = {"x": np.zeros((1, 16), np.float32)}
    with pytest.raises(InternalError, match="broken"):
        compare(pair[0], broken, samples, classes=False)
    with pytest.raises(ModelError, match="broken"):
        compare(broken, pair[0], samples, classes=False)


def test_a_result_that_refuses_the_samples_is_our_fault_too(pair, new_graph, tmp_path):
    graph = new_graph()
    graph.node("Neg", ["x"], "y")
    narrow = graph.save(tmp_path / "narrow.onnx", {"x": ["N", 8]}, {"y": ["N", 8]})
    with pytest.raises(InternalError, match="refuses the samples"):
        compare(pair[0], narrow, {"x": np.zeros((1, 16), np.float32)}, classes=False)


def test_simulation_and_measurement_are_held_against_each_other():
    random = np.random.default_rng(4)
    reference = random.standard_normal((40, 10))
    simulated = reference + 0.1 * random.standard_normal((40, 10))
    returned = simulated + 0.001 * random.standard_normal((40, 10))
    check = SimulationCheck()
    with pytest.raises(InternalError):
        check.result(classes=True)
    for k in range(0, 40, 8):
        check.add(reference[k : k + 8], simulated[k : k + 8], returned[k : k + 8])
    result = check.result(classes=True)
    assert result.predicted_sqnr_db == pytest.approx(20, abs=0.5)
    assert result.measured_sqnr_db == pytest.approx(result.predicted_sqnr_db, abs=0.1)
    assert result.agreement_sqnr_db == pytest.approx(60, abs=0.5)
    assert result.top1_agreement == np.mean(simulated.argmax(1) == returned.argmax(1))
