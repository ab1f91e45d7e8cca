"""Every grid: near what it rounds, no worse than coarser grids, and what second sources make of floating formats."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant_core.codes.number_formats import code_values, nearest_code, positive_values
from quant_core.errors import SpecError
from quant_core.quantizers import code_range, quantize_weight
from quant_core.quantizers.grids.elements import Integers, Minifloats
from quant_core.quantizers.grids.scaled_rows import from_scaled_rows, to_scaled_rows
from quant_core.spec.weight_grid import WeightGrid

OCP = "OCP Microscaling Formats (MX) Specification, version 1.0"
GRANULARITIES = ["tensor", "channel", "block"]


def weights(shape, seed=0):
    random = np.random.default_rng(seed)
    spread = np.exp(random.standard_normal(shape))  # heavy tails and different channels, as in real layers
    return (random.standard_normal(shape) * spread * 0.05 + 0.01).astype(np.float32)


def error(weight, quantized):
    return float(((quantized.dequantize() - weight) ** 2).sum())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@given(
    st.integers(2, 8),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(0, 2**32),
    st.integers(0, 3),
)
def test_nothing_moves_further_than_half_a_step(granularity, symmetric, bits, shape, seed, axis):
    weight = weights(shape, seed)
    grid = WeightGrid(granularity, 16, symmetric, range_search="minmax")
    quantized = quantize_weight(weight, bits, axis % len(shape), grid)
    step = np.broadcast_to(quantized.spread(quantized.scale), shape)
    if symmetric:  # the longer side decides the step, and its end is a code
        low, high = code_range(bits)
        assert (weight <= (high + 0.5) * step).all()
        assert (weight >= (low - 0.5) * step).all()
    assert (np.abs(quantized.dequantize() - weight) <= 0.5 * step * (1 + 1e-5)).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_more_freedom_never_costs_accuracy(bits):
    weight = weights((24, 64))
    found = {
        (granularity, symmetric): error(
            weight, quantize_weight(weight, bits, 0, WeightGrid(granularity, 16, symmetric))
        )
        for granularity in GRANULARITIES
        for symmetric in (True, False)
    }
    for granularity in GRANULARITIES:
        assert found[granularity, False] <= found[granularity, True]
    for symmetric in (True, False):
        assert found["block", symmetric] < found["channel", symmetric] < found["tensor", symmetric]


def test_a_block_is_rounded_as_if_it_were_alone():
    weight = weights((3, 5, 7))
    grid = WeightGrid("block", 16, symmetric=False)
    quantized = quantize_weight(weight, 3, 1, grid)
    assert quantized.scale.shape == quantized.zero_point.shape == (5, 2)
    channel = np.moveaxis(weight, 1, 0)[2].reshape(-1)
    own = quantize_weight(channel[16:], 3, None, grid)
    both = np.moveaxis(quantized.dequantize(), 1, 0)[2].reshape(-1)
    np.testing.assert_array_equal(both[16:], own.dequantize())


@pytest.mark.parametrize("symmetric", [True, False])
def test_block_scales_have_sixteen_bits(symmetric):
    scale = quantize_weight(weights((8, 64)), 4, 0, WeightGrid("block", 16, symmetric)).scale
    np.testing.assert_array_equal(scale, scale.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_zero_keeps_its_code_without_symmetry():
    weight = np.abs(weights((6, 40))) + 0.5
    weight[:, ::4] = 0
    quantized = quantize_weight(weight, 4, 0, WeightGrid(symmetric=False))
    assert (quantized.dequantize()[:, ::4] == 0).all()
    assert (quantized.zero_point < 0).all()  # all weights lie on one side


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 3), st.integers(1, 9) | st.none())
def test_rows_by_scale_come_back(shape, axis, block_size):
    codes = np.random.default_rng(0).integers(-8, 8, shape).astype(np.int8)
    for chosen in (None, axis % len(shape)):
        rows = to_scaled_rows(codes, chosen, block_size).numpy().astype(np.int8)
        np.testing.assert_array_equal(from_scaled_rows(rows, tuple(shape), chosen, block_size), codes)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize(
    ("name", "dtype", "largest"),
    [("fp8_e4m3", ml_dtypes.float8_e4m3fn, 448), ("fp8_e5m2", ml_dtypes.float8_e5m2, 57344)],
)
def test_fp8_is_bit_exact_to_ml_dtypes_and_torch(name, dtype, largest, granularity):
    weight = weights((16, 50))
    grid = WeightGrid(granularity, format=name, range_search="minmax")
    quantized = quantize_weight(weight, 8, 0, grid)
    most = np.abs(weight).max() if granularity == "tensor" else np.abs(weight).max(1)
    np.testing.assert_array_equal(quantized.scale, (most / np.float32(largest)).astype(np.float32))
    scale = quantized.spread(quantized.scale)
    expected = (weight / scale).astype(dtype)
    np.testing.assert_array_equal(quantized.codes.view(np.uint8), expected.view(np.uint8))
    by_torch = torch.from_numpy(weight / scale).to(
        torch.float8_e4m3fn if name == "fp8_e4m3" else torch.float8_e5m2
    )
    np.testing.assert_array_equal(quantized.dequantize(), by_torch.float().numpy() * scale)


def test_nvfp4_golden_vector():
    """Against NVIDIA's recipe (arXiv:2509.25149, appendix C), written again with the number formats of ml_dtypes."""
    weight = weights((6, 48))
    quantized = quantize_weight(weight, 4, 0, WeightGrid("block", 16, format="nvfp4", range_search="minmax"))
    factor = np.float32(np.abs(weight).max() / (6 * 448))
    assert quantized.tensor_scale == pytest.approx(float(factor), rel=1e-6)
    blocks = weight.reshape(6, 3, 16)
    scale = (np.abs(blocks).max(2) / np.float32(6) / factor).astype(ml_dtypes.float8_e4m3fn)
    step = scale.astype(np.float32) * factor
    np.testing.assert_allclose(quantized.scale, step, rtol=1e-6)
    elements = (blocks / step[:, :, None]).clip(-6, 6).astype(ml_dtypes.float4_e2m1fn)
    expected = elements.astype(np.float32) * step[:, :, None]
    np.testing.assert_allclose(quantized.dequantize(), expected.reshape(6, 48), rtol=1e-6)


def test_mxfp4_golden_vector():
    """Against section 6.3 of the OCP specification, written again with the number formats of ml_dtypes."""
    weight = weights((6, 64))
    quantized = quantize_weight(weight, 4, 0, WeightGrid("block", 32, format="mxfp4", range_search="minmax"))
    blocks = weight.reshape(6, 2, 32)
    largest_power = 2.0 ** np.floor(np.log2(np.abs(blocks).max(2).astype(np.float64)))
    scale = (largest_power / 4).astype(ml_dtypes.float8_e8m0fnu)
    np.testing.assert_array_equal(quantized.scale, scale.astype(np.float32))
    step = scale.astype(np.float32)[:, :, None]
    elements = (blocks / step).clip(-6, 6).astype(ml_dtypes.float4_e2m1fn)
    np.testing.assert_array_equal(quantized.dequantize(), (elements.astype(np.float32) * step).reshape(6, 64))


def test_mxfp4_example_at_powers_of_two():
    """2^k as largest weight has the shared exponent k - 2 exactly; just below it k - 3."""
    weight = np.zeros((40, 32), dtype=np.float32)
    exponents = np.arange(-20, 20)
    weight[:, 0] = 2.0**exponents
    grid = WeightGrid("block", 32, format="mxfp4", range_search="minmax")
    np.testing.assert_array_equal(quantize_weight(weight, 4, 0, grid).scale[:, 0], 2.0 ** (exponents - 2))
    below = np.nextafter(weight, 0)
    np.testing.assert_array_equal(quantize_weight(below, 4, 0, grid).scale[:, 0], 2.0 ** (exponents - 3))


@pytest.mark.parametrize("name", ["nvfp4", "mxfp4", "fp8_e4m3", "fp8_e5m2"])
def test_the_search_never_loses_to_the_rule(name):
    weight = weights((32, 128))
    bits = 8 if name.startswith("fp8") else 4
    grid = WeightGrid("block", {"nvfp4": 16}.get(name, 32), format=name)
    rule = quantize_weight(weight, bits, 0, replace(grid, range_search="minmax"))
    assert error(weight, quantize_weight(weight, bits, 0, grid)) < error(weight, rule)


@pytest.mark.parametrize("element", ["e2m1", "e4m3", "e5m2"])
def test_neighbours_enclose(element):
    kinds = Minifloats(element)
    x = torch.linspace(kinds.low, kinds.high, 9001)
    below, above = kinds.neighbours(x)
    assert (below <= x).all()
    assert (x <= above).all()
    rounded = kinds.nearest(x)
    assert ((rounded == below) | (rounded == above)).all()
    assert (torch.minimum(x - below, above - x) == (x - rounded).abs()).all()


def test_integers_have_neighbours():
    below, above = Integers(-2, 1).neighbours(torch.tensor([-2.0, -0.5, 0.25]))
    assert below.tolist() == [-2, -1, 0]
    assert above.tolist() == [-1, 0, 1]


def test_integers_are_rounded_in_place():
    """A search rounds whole weights many times over; a second tensor each time would be a third of its time."""
    x = torch.tensor([-2.6, -0.5, 0.5, 0.7, 1.5])
    rounded = Integers(-2, 1).nearest(x)
    assert rounded.data_ptr() == x.data_ptr()
    assert rounded.tolist() == [-2, 0, 0, 1, 1]


def test_a_format_has_its_own_width():
    with pytest.raises(SpecError, match="nvfp4 has 4 bits"):
        quantize_weight(np.ones((2, 2), np.float32), 3, 0, WeightGrid("block", 16, format="nvfp4"))


@pytest.mark.parametrize("name", ["int", "nvfp4", "mxfp4", "fp8_e4m3"])
@pytest.mark.parametrize("shape", [(4, 40), (3, 0)])
def test_zeros_and_nothing_stay_what_they_are(shape, name):
    bits = 8 if name == "fp8_e4m3" else 4
    for symmetric in (True, False) if name == "int" else (True,):
        grid = WeightGrid("block", 16, symmetric, format=name)
        quantized = quantize_weight(np.zeros(shape, np.float32), bits, 0, grid)
        assert (quantized.dequantize() == 0).all()
        assert (quantized.scale > 0).all()


@pytest.mark.parametrize("element", ["e2m1", "e4m3", "e5m2"])
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_rounding_by_arithmetic_is_that_of_the_table(element, values):
    kinds = Minifloats(element)
    x = torch.tensor(values, dtype=torch.float32)
    rounded = kinds.nearest(x)
    np.testing.assert_array_equal(rounded.numpy(), code_values(element)[nearest_code(x.numpy(), element)])
    np.testing.assert_array_equal(code_values(element)[kinds.encode(rounded).view(np.uint8)], rounded.numpy())


@pytest.mark.parametrize("element", ["e2m1", "e4m3", "e5m2"])
def test_ties_go_to_the_even_code(element):
    grid = positive_values(element)
    ties = torch.from_numpy((grid[:-1] + grid[1:]) / 2)
    codes = Minifloats(element).encode(Minifloats(element).nearest(ties))
    assert (codes % 2 == 0).all()
