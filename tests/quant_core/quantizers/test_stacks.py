"""Stacks of matrices: found as layers, rounded matrix by matrix, run by an integer kernel."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from quant_core.calibration import Samples
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.grids.weight import quantize_weight
from quant_core.quantizers.moments.input_moments import InputMoments, has_moments, input_moments
from quant_core.quantizers.moments.rows import from_rows, rows_shape, scale_to_rows, to_rows
from quant_core.quantizers.rounding.gptq import gptq
from quant_core.spec import WeightGrid
from tests.quant_core.export.networks import HEADER, Net, optimized

TEXT = """g (float[n,%s] x) => (float[n,%s] y) {
    a = Identity(x)
    y = MatMul(a, w)
}"""


def stacked(x, y, w):
    return Net((HEADER + TEXT % (x, y), {"w": w}, set(), {}))


@pytest.mark.parametrize(
    ("x", "y", "w", "axis"),
    [
        ("3,4,32", "3,4,16", (3, 32, 16), (0, 2)),
        ("4,32", "4,16", (1, 32, 16), 2),
        ("1,4,32", "3,4,16", (3, 32, 16), (0, 2)),
        ("2,3,4,32", "2,3,4,16", (2, 3, 32, 16), (0, 1, 3)),
        ("2,3,4,32", "2,3,4,16", (2, 1, 32, 16), (0, 3)),
    ],
)
def test_a_stack_has_a_channel_for_each_output_of_each_matrix(x, y, w, axis):
    net = stacked(x, y, w)
    (layer,) = net.layers
    assert (layer.axis, layer.by_rows, layer.shape) == (axis, True, w)
    assert ORT_CPU.form(layer, net.model, 4, 8, WeightGrid()) == "dynamic"
    array = np.random.default_rng(0).standard_normal(w).astype(np.float32)
    rows = to_rows(layer, array)
    assert tuple(rows.shape) == rows_shape(layer)
    np.testing.assert_array_equal(from_rows(layer, rows), array)
    found = quantize_weight(array, 4, layer.axis)
    matrices = array.reshape(-1, *w[-2:])
    alone = [quantize_weight(matrix, 4, 1) for matrix in matrices]
    np.testing.assert_array_equal(found.codes.reshape(matrices.shape), [each.codes for each in alone])
    np.testing.assert_array_equal(found.scale, np.concatenate([each.scale for each in alone]))
    np.testing.assert_array_equal(
        scale_to_rows(layer, found.scale)[..., 0].flatten().numpy(), found.scale
    )  # of the order that rows have


def test_vectors_and_tensors_of_unknown_rank_keep_float_arithmetic():
    text = """g (float[n,3,4,32] x) => (float[3,16] y) {
        a = ReduceMax<keepdims=0>(x, axes)
        y = MatMul(a, w)
    }"""
    net = Net((HEADER + text, {"w": (3, 32, 16)}, set(), {"axes": [0, 1, 2]}))
    (layer,) = net.layers
    assert not layer.by_rows
    assert ORT_CPU.form(layer, net.model, 4, 8, WeightGrid()) == "weight_only"


@pytest.mark.parametrize("x", ["3,4,32", "1,4,32"])
def test_moments_are_those_of_what_each_matrix_is_multiplied_with(x):
    net = stacked(x, "3,4,16", (3, 32, 16))
    (layer,) = net.layers
    assert has_moments(layer)
    found = moments_of(net)
    read = np.broadcast_to(net.feeds["x"], (5, 3, 4, 32))
    for at in range(3):
        columns = read[:, at].reshape(-1, 32).astype(np.float64)
        np.testing.assert_allclose(found.second[at], columns.T @ columns / len(columns), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.mean[at], columns.mean(0), rtol=1e-4, atol=1e-5)


def moments_of(net):
    samples = Samples({"x": net.feeds["x"]})
    found = input_moments(FloatNetwork(net.program, net.model, net.layers, 2), net.layers, samples, seed=0)
    (moments,) = found.values()
    assert isinstance(moments, InputMoments)
    return moments


def test_each_matrix_is_rounded_as_it_would_be_alone():
    net = stacked("3,4,32", "3,4,16", (3, 32, 16))
    (layer,) = net.layers
    weight = net.model.graph.initializers["w"].const_value.numpy()
    mixed = np.random.default_rng(2).standard_normal((3, 640, 8)) @ np.random.default_rng(3).standard_normal(
        (3, 8, 32)
    )
    columns = torch.from_numpy(mixed + np.random.default_rng(4).standard_normal(mixed.shape)).float()
    moments = InputMoments(columns.mT @ columns / 640, columns.mean(1), 640, 640)
    together = gptq(layer, weight, moments, [3])[3]
    plain = replace(layer, shape=(32, 16), axis=1)
    for at in range(3):
        own = replace(moments, second=moments.second[at : at + 1], mean=moments.mean[at : at + 1])
        alone = gptq(plain, weight[at], own, [3])[3]
        np.testing.assert_array_equal(together.codes[at], alone.codes)
        np.testing.assert_array_equal(together.scale.reshape(3, 16)[at], alone.scale)
    nearest = quantize_weight(weight, 3, layer.axis)

    def error(rounded):
        changed = torch.from_numpy(rounded.dequantize() - weight)
        return float(torch.einsum("gio,gij,gjo->", changed, moments.second, changed))

    assert error(together) < 0.7 * error(nearest)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_a_stack_runs_on_one_integer_kernel(bits, tmp_path):
    net = stacked("3,40,32", "3,40,16", (3, 32, 16))
    (layer,) = net.layers
    net.export({layer.name: bits}, 8, tmp_path / "model.onnx")
    graph = optimized(tmp_path / "model.onnx")
    assert [node.op_type for node in graph.node] == ["DynamicQuantizeMatMul"]
    (codes,) = (tensor for tensor in graph.initializer if len(tensor.dims) == 3 and tensor.dims[1] == 32)
    assert codes.data_type == onnx.TensorProto.INT8
