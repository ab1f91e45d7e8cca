"""Weights as rows of input coefficients, and back."""

import numpy as np
import pytest

from quant_core.ingest.layer import Layer
from quant_core.quantizers.moments.rows import from_rows, rows_shape, to_rows

LAYERS = {
    "convolution": Layer("layer", "Conv", "w", (6, 5, 3, 3), 0, (), group=2),
    "transposed convolution": Layer("layer", "ConvTranspose", "w", (20, 4, 2, 3), 1, ()),
    "outputs first": Layer("layer", "Gemm", "w", (70, 60), 0, ()),
    "inputs first": Layer("layer", "Gemm", "w", (70, 60), 1, ()),
    "product": Layer("layer", "MatMul", "w", (70, 60), 1, ()),
    "stack": Layer("layer", "MatMul", "w", (3, 70, 60), 1, ()),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=[*LAYERS])
def test_rows_are_a_copy_that_goes_back(layer):
    weight = np.random.default_rng(0).standard_normal(layer.shape).astype(np.float32)
    kept = weight.copy()
    rows = to_rows(layer, weight)
    assert tuple(rows.shape) == rows_shape(layer)
    assert rows.is_contiguous()
    np.testing.assert_array_equal(from_rows(layer, rows), weight)
    rows.zero_()
    np.testing.assert_array_equal(weight, kept)


def test_rows_of_a_matrix_with_inputs_first_are_its_columns():
    weight = np.arange(70 * 60, dtype=np.float32).reshape(70, 60)
    np.testing.assert_array_equal(to_rows(LAYERS["product"], weight)[0].numpy(), weight.T)
