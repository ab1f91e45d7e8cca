"""Biases are counted in whole steps by integer kernels, and the simulation knows it."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from quant_core.codes import CorrectedBias
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.portable import portable
from quant_core.pipeline import quantize
from quant_core.quantizers import Simulation
from quant_core.spec import QuantizeSpec
from quant_core.verification.integer_bias import with_integer_biases
from tests.quant_core.export.networks import HEADER, Net


def cancelling():
    """One channel takes two equal inputs apart: its bias counts in steps far above those of the output."""
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((16, 8, 3, 3)) / 10).astype(np.float32)
    weight[0], weight[0, 0], weight[0, 1] = 0, 4000, -4000
    net = Net("conv", w1=weight, b1=np.full(16, 0.3, np.float32))
    net.feeds["x"][:, 1] = net.feeds["x"][:, 0]
    return net


@pytest.mark.parametrize("target", [ORT_CPU, portable(21)], ids=lambda target: target.name)
def test_onnxruntime_computes_with_the_rounded_biases(target, tmp_path):
    net = cancelling()
    plan = dict.fromkeys((layer.name for layer in net.layers), 8)
    placement, _, plain = net.export(plan, 8, tmp_path / "model.onnx", target)
    rounded, coarse = with_integer_biases(net.model, net.layers, net.weights, placement, net.grids)
    assert coarse == (net.layers[0].name,)
    simulated = Simulation(net.model, net.layers, rounded, net.grids, ()).run(net.feeds)["y"]
    answers = net.run(tmp_path / "model.onnx")
    step = np.abs(answers).max() / 255
    assert np.abs(answers - simulated).max() < 0.1 * step
    assert np.abs(answers - plain).max() > 0.5 * step
    first = net.layers[0]
    unit = net.grids["x"].scale * net.weights[first.name].scale
    np.testing.assert_allclose(
        rounded[first.name].bias.values[0], np.round(0.3 / unit[0]) * unit[0], rtol=1e-6
    )
    assert np.abs(rounded[first.name].bias.values - 0.3).max() <= unit.max() / 2


def test_a_corrected_bias_is_what_is_rounded(tmp_path):
    net = cancelling()
    first = net.layers[0].name
    placement, _, _ = net.export({layer.name: 8 for layer in net.layers}, 8, tmp_path / "model.onnx")
    corrected = CorrectedBias("b1", np.full(16, 0.7, np.float32))
    weights = {**net.weights, first: replace(net.weights[first], bias=corrected)}
    rounded, _ = with_integer_biases(net.model, net.layers, weights, placement, net.grids)
    unit = net.grids["x"].scale * net.weights[first].scale.reshape(-1)
    np.testing.assert_allclose(rounded[first].bias.values, np.round(0.7 / unit) * unit, rtol=1e-5)


def test_a_job_with_coarse_biases_ends_and_names_them(tmp_path):
    rng = np.random.default_rng(0)
    first = rng.standard_normal((16, 8, 3, 3)).astype(np.float32) / 8
    first[5] *= 1e5
    second = rng.standard_normal((16, 16, 1, 1)).astype(np.float32) / 4
    second[:, 5] *= 1e-5
    tensors = {"w": first, "b": np.ones(16, np.float32), "v": second, "c": np.ones(16, np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], "one"),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "v", "c"], ["y"], "two"),
    ]
    ends = [
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", channels, size, size])]
        for name, channels, size in (("x", 8, 6), ("y", 16, 4))
    ]
    constants = [numpy_helper.from_array(values, name) for name, values in tensors.items()]
    graph = helper.make_graph(nodes, "net", *ends, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((24, 8, 6, 6)).astype(np.float32))
    asked = {"effective_bits": 5, "rounding": "nearest", "equalize": "none", "float_islands": 0}
    spec = QuantizeSpec.model_validate(asked)
    report = quantize(tmp_path / "net.onnx", tmp_path / "x.npz", spec, tmp_path / "out")
    assert any("the bias of two is coarse" in warning for warning in report.warnings)
    assert report.simulation.agreement_sqnr_db > 60
    spec = QuantizeSpec.model_validate(spec.model_dump() | {"float_activations": ["two"]})
    kept = quantize(tmp_path / "net.onnx", tmp_path / "x.npz", spec, tmp_path / "out")
    assert not any("coarse" in warning for warning in kept.warnings)
    assert kept.metrics.sqnr_db > report.metrics.sqnr_db + 3


def test_a_bias_stays_behind_a_part_that_keeps_its_own_grid(tmp_path):
    text = """g (float[n,8,6,6] x) => (float[n,4,6,6] y) <float s = {0.03}, uint8 z = {128}> {
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        y = Conv(d, w, b)
    }"""
    net = Net((HEADER + text, {"w": (4, 8, 1, 1), "b": (4,)}, set(), {}))
    placement, _, _ = net.export({layer.name: 8 for layer in net.layers}, 8, tmp_path / "model.onnx")
    assert list(placement.forms.values()) == ["static"]
    found = with_integer_biases(net.model, net.layers, net.weights, placement, net.grids)
    assert found == (net.weights, ())
