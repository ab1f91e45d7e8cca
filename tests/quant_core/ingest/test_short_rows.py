"""Which tables share one step: those where a step a row costs more than it brings."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from quant_core.ingest import find_layers
from quant_core.spec.weight_grid import WeightGrid

N = helper.make_node
ROWS = np.array([0, 2])


def _table(build, table, *more):
    graph = build([N("Gather", ["w", "i"], ["y"]), *more], {"i": ROWS}, {"w": table.astype(np.float32)})
    (layer,) = find_layers(ir.from_proto(graph))
    return layer


@pytest.mark.parametrize(("columns", "short"), [(1, True), (16, True), (64, False), (256, False)])
def test_rows_alike(columns, short, build, floats):
    layer = _table(build, floats(500, columns))
    assert layer.short_rows == short
    assert layer.step_axis(WeightGrid()) == (None if short else 0)


def _error(table, steps):
    """Squared error of the codes of half of the rows or more."""
    return float(np.median(np.square(np.round(table / steps) * steps - table).mean(axis=1)))


@pytest.mark.parametrize("far", [1, 100, 10_000])
@pytest.mark.parametrize("columns", [8, 16, 24])
def test_the_choice_is_the_one_with_less_error_at_equal_bytes(far, columns, build, floats):
    table = floats(300, columns)
    table[7] *= far
    apart = np.abs(table).max(axis=1, keepdims=True) / 127
    # Steps of 32 bits a row: with one step, each weight would have 32 / n bits more for the same bytes.
    together = apart.max() / 2 ** (32 / columns)
    ratio = _error(table.astype(np.float64), together) / _error(table.astype(np.float64), apart)
    assert ratio < 0.7 or ratio > 1.5, "a table that is no clear case"
    assert _table(build, table).short_rows == (ratio < 1)


def test_zeros_blocks_and_products(build, floats):
    assert not _table(build, np.zeros((40, 4))).short_rows
    layer = _table(build, floats(40, 4))
    assert layer.step_axis(WeightGrid(granularity="block")) == 0
    graph = build(
        [N("Gather", ["w", "i"], ["e"]), N("MatMul", ["e", "v"], ["y"])],
        {"i": ROWS},
        {"w": floats(40, 4), "v": floats(4, 4)},
    )
    assert [layer.short_rows for layer in find_layers(ir.from_proto(graph))] == [True, False]
