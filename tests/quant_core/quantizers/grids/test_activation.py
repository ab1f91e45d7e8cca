import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from quant_core.quantizers import ActivationGrid, activation_grid, dynamic_fake_quantize, fake_quantize


def run(nodes, x, initializers=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(x.shape))],
        list(initializers),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.3, 2.7), (-3.0, 0.0), (0.2, 5.0)])
def test_rounding_is_that_of_onnxruntime(low, high):
    x = np.random.default_rng(0).uniform(low - 1, high + 1, 1000).astype(np.float32)
    grid = activation_grid(low, high)
    constants = [
        numpy_helper.from_array(np.array(grid.scale, dtype=np.float32), "s"),
        numpy_helper.from_array(np.array(grid.zero_point, dtype=np.uint8), "z"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    np.testing.assert_allclose(
        fake_quantize(torch.from_numpy(x), grid).numpy(), run(nodes, x, constants), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("shift", [-20.0, -0.5, 0.0, 30.0])
def test_dynamic_rounding_is_that_of_onnxruntime(shift):
    x = (np.random.default_rng(1).standard_normal((4, 50)) + shift).astype(np.float32)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    np.testing.assert_allclose(
        dynamic_fake_quantize(torch.from_numpy(x)).numpy(), run(nodes, x), rtol=0, atol=1e-5
    )


def test_zero_is_on_the_grid_and_ranges_are_covered():
    for low, high in [(0.3, 5.0), (-5.0, -0.1), (-1.0, 7.0)]:
        grid = activation_grid(low, high)
        assert grid.low <= min(low, 0) + grid.scale
        assert grid.high >= max(high, 0) - grid.scale
        assert float(fake_quantize(torch.zeros(1), grid)) == 0.0
    assert activation_grid(0.0, 0.0) == ActivationGrid(scale=1.0, zero_point=0)
    assert activation_grid(0.0, 4.0).zero_point == 0


def test_gradients_pass_straight_through_inside_the_range():
    x = torch.tensor([-5.0, 0.3, 1.9, 9.0], requires_grad=True)
    fake_quantize(x, activation_grid(-1, 2)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]
    y = torch.tensor([-5.0, 0.3], requires_grad=True)
    dynamic_fake_quantize(y).sum().backward()
    assert y.grad is not None
    assert y.grad.tolist() == [1, 1]
    assert dynamic_fake_quantize(torch.empty(0)).numel() == 0


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5), (3, 2, 2, 2)])
def test_samples_of_a_batch_are_rounded_each_by_its_own_range(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.arange(
        1, shape[0] + 1
    ).reshape(-1, *[1] * (len(shape) - 1))
    alone = torch.cat([dynamic_fake_quantize(part) for part in x.chunk(3)])
    assert torch.equal(dynamic_fake_quantize(x, samples=3), alone)
    assert not torch.equal(dynamic_fake_quantize(x), alone)
    assert torch.equal(dynamic_fake_quantize(x, samples=7), dynamic_fake_quantize(x))
