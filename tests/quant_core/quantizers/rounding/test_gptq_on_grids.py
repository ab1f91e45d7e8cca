"""GPTQ under blocks, zero points and floating formats."""

import numpy as np
import pytest
import torch

from quant_core.ingest.layer import Layer
from quant_core.quantizers import quantize_weight
from quant_core.quantizers.moments.input_moments import InputMoments
from quant_core.quantizers.moments.rows import rows_shape, to_rows
from quant_core.quantizers.rounding.gptq import gptq
from quant_core.spec.weight_grid import WeightGrid

GRIDS = {
    "tensor": WeightGrid("tensor"),
    "asymmetric": WeightGrid(symmetric=False),
    "tensor_asymmetric": WeightGrid("tensor", symmetric=False),
    "block": WeightGrid("block", 16),
    "block_asymmetric": WeightGrid("block", 16, symmetric=False),
    "nvfp4": WeightGrid("block", 16, format="nvfp4"),
    "mxfp4": WeightGrid("block", 32, format="mxfp4"),
    "fp8_e4m3": WeightGrid(format="fp8_e4m3"),
    "fp8_e5m2": WeightGrid("tensor", format="fp8_e5m2"),
}
LAYERS = {
    "conv": Layer("layer", "Conv", "w", (8, 4, 3, 3), 0, ()),
    "grouped": Layer("layer", "Conv", "w", (6, 5, 3, 3), 0, (), group=2),
    "transposed": Layer("layer", "ConvTranspose", "w", (20, 4, 2, 3), 1, ()),
    "gemm": Layer("layer", "Gemm", "w", (5, 40), 0, ()),
    "matmul": Layer("layer", "MatMul", "w", (40, 5), 1, ()),
}


def problem(kind, mixed):
    layer = LAYERS[kind]
    groups, _, inputs = rows_shape(layer)
    weight = np.random.default_rng(0).standard_normal(layer.shape).astype(np.float32) + np.float32(0.3)
    generator = torch.Generator().manual_seed(1)
    second = torch.diag_embed(torch.rand(groups, inputs, generator=generator) + 0.1)
    if mixed:
        mixing = torch.randn(groups, inputs, inputs, generator=generator)
        second = mixing @ mixing.transpose(1, 2) / inputs
    return layer, weight, InputMoments(second, torch.zeros(groups, inputs), 10**6, 10**6)


def widths(grid):
    return (8,) if grid.format.startswith("fp8") else (4,) if grid.format != "int" else (2, 4, 8)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", GRIDS)
def test_independent_inputs_are_rounded_to_the_nearest_value(name, kind):
    layer, weight, moments = problem(kind, mixed=False)
    rounded = gptq(layer, weight, moments, widths(GRIDS[name]), grid_of=lambda _: GRIDS[name])
    for bits, ours in rounded.items():
        nearest = quantize_weight(weight, bits, layer.axis, GRIDS[name])
        np.testing.assert_array_equal(ours.scale, nearest.scale)  # those of the float weights
        np.testing.assert_allclose(ours.dequantize(), nearest.dequantize(), rtol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", [name for name in GRIDS if not name.startswith("fp8")])
def test_output_error_is_below_that_of_nearest_rounding(name, kind):
    layer, weight, moments = problem(kind, mixed=True)

    def lost(quantized):
        delta = to_rows(layer, quantized.dequantize() - weight)
        return float(torch.einsum("goi,gij,goj->", delta, moments.second, delta))

    ours = gptq(layer, weight, moments, [4], grid_of=lambda _: GRIDS[name])[4]
    assert lost(ours) < lost(quantize_weight(weight, 4, layer.axis, GRIDS[name]))


def test_formats_and_integers_share_a_call():
    layer, weight, moments = problem("gemm", mixed=True)
    grids = {3: GRIDS["block"], 4: GRIDS["nvfp4"], 8: GRIDS["fp8_e4m3"], 6: GRIDS["block_asymmetric"]}
    together = gptq(layer, weight, moments, sorted(grids), grid_of=grids.__getitem__)
    for bits, grid in grids.items():
        alone = gptq(layer, weight, moments, [bits], grid_of=lambda _, grid=grid: grid)[bits]
        np.testing.assert_array_equal(together[bits].codes, alone.codes)
        assert together[bits].format == grid.format
