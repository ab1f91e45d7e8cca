"""Learned codes begin at the codes that are given, keep their grid, and hand gradients on by the chain rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quant_core.quantizers import quantize_weight
from quant_core.quantizers.tuning.learned_codes import LearnedCodes
from quant_core.spec import WeightGrid
from tests.quant_core.quantizers.tuning.small_nets import small_net


def test_codes_start_where_they_are_told_and_gradients_are_those_of_the_chain_rule():
    _, model, layers, _ = small_net()
    layer = layers[1]
    weight = model.graph.initializers["w2"].const_value.numpy()
    start = quantize_weight(weight, 3, 0)
    learned = LearnedCodes(model, layer, start, torch.ones(2, 32))
    values = learned.stand_ins()
    np.testing.assert_allclose(values["w2"].detach().numpy(), start.dequantize(), rtol=1e-6)
    np.testing.assert_array_equal(learned.result().codes, start.codes)
    np.testing.assert_array_equal(
        values["b2"].detach().numpy(), model.graph.initializers["b2"].const_value.numpy()
    )
    gradient = np.random.default_rng(0).standard_normal(weight.shape).astype(np.float32)
    (values["w2"] * torch.from_numpy(gradient)).sum().backward()
    scale = start.scale.reshape(-1, 1, 1, 1)
    (codes,), (log_scale,) = learned.parameters("codes"), learned.parameters("scales")
    np.testing.assert_allclose(codes.grad.numpy(), gradient * scale, rtol=1e-5)
    expected = (gradient * start.dequantize()).sum((1, 2, 3)) / 2  # at 3 bits
    np.testing.assert_allclose(log_scale.grad.numpy().reshape(-1), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "grid", [WeightGrid(symmetric=False), WeightGrid("block", 16), WeightGrid("block", 16, symmetric=False)]
)
def test_codes_keep_zero_points_and_blocks(grid):
    _, model, layers, _ = small_net()
    layer = layers[1]
    weight = model.graph.initializers["w2"].const_value.numpy() + np.float32(0.02)
    start = quantize_weight(weight, 3, 0, grid)
    learned = LearnedCodes(model, layer, start, torch.ones(2, 32))
    np.testing.assert_allclose(learned.stand_ins()["w2"].detach().numpy(), start.dequantize(), rtol=1e-6)
    (codes,) = learned.parameters("codes")
    with torch.no_grad():
        codes += 9  # beyond the end of every grid
    learned.project()
    result = learned.result()
    assert result.codes.max() == result.codes.min() == 3
    np.testing.assert_allclose(result.scale, start.scale, rtol=1e-6)
    np.testing.assert_array_equal(result.zero_point, start.zero_point)
    assert (result.block_size, bool(learned.parameters("scales"))) == (grid.block, grid.block is None)
