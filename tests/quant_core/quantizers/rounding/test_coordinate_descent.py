"""Coordinate descent ends where no single code can be better, and carries over to inputs that it never saw."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from quant_core.quantizers import quantize_weight
from quant_core.quantizers.rounding import coordinate_descent
from quant_core.quantizers.rounding.coordinate_descent import affordable_passes, descend
from quant_core.quantizers.rounding.gptq import gptq
from quant_core.spec import WeightGrid
from tests.quant_core.quantizers.rounding.layers import CASES, build, moments, row_errors


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "grid", [WeightGrid(), WeightGrid(symmetric=False), WeightGrid("block", 16), WeightGrid("tensor")]
)
def test_no_row_gets_worse_and_no_single_code_could_be_better(case, grid):
    _, layer, weight, _ = build(*CASES[case])
    second = moments(layer).second
    starts = [quantize_weight(weight, bits, layer.axis, grid) for bits in (2, 3)]
    for start, found in zip(starts, descend(layer, weight, starts, second, passes=50), strict=True):
        before, after = (row_errors(layer, weight, w.dequantize(), second) for w in (start, found))
        assert (after <= before * (1 + 1e-4) + 1e-6).all()
        assert after.sum() <= before.sum()
        half = 1 << (found.bits - 1)
        assert found.codes.min() >= -half
        assert found.codes.max() < half
        np.testing.assert_array_equal(found.scale, start.scale)
        rng = np.random.default_rng(0)
        steps = np.broadcast_to(found.spread(found.scale), layer.shape)
        for at in rng.choice(weight.size, min(20, weight.size), replace=False):
            where = np.unravel_index(at, weight.shape)
            for move in (-1, 1):
                if -half <= found.codes[where] + move < half:
                    other = found.dequantize()
                    other[where] += move * steps[where]
                    worse = row_errors(layer, weight, other, second)
                    assert (worse >= after * (1 - 1e-4) - 1e-6).all()


def test_rows_come_closer_to_the_best_of_all_codes():
    _, layer, weight, _ = build("Gemm", (12, 5), (24, 5), {"transB": 1})
    seen = moments(layer)
    start = quantize_weight(weight, 2, layer.axis)
    (found,) = descend(layer, weight, [start], seen.second)
    best = np.min(
        [
            row_errors(layer, weight, np.array(codes) * start.scale[:, None], seen.second)
            for codes in product(range(-2, 2), repeat=5)
        ],
        axis=0,
    ).sum()
    before, after = (
        row_errors(layer, weight, w.dequantize(), seen.second).sum() / best - 1 for w in (start, found)
    )
    assert 0 <= after < 0.5 * before


def test_codes_of_gptq_get_better_on_inputs_that_were_not_seen():
    _, layer, weight, _ = build("Gemm", (12, 48), (32, 48), {"transB": 1})
    seen, unseen = moments(layer), moments(layer, seed=2).second
    first, then = (gptq(layer, weight, seen, (2, 4), improve=improve) for improve in (None, descend))
    for bits in (2, 4):
        ratio = (
            row_errors(layer, weight, then[bits].dequantize(), unseen).sum()
            / row_errors(layer, weight, first[bits].dequantize(), unseen).sum()
        )
        assert ratio < 0.97


def test_without_passes_nothing_changes_and_large_layers_get_fewer():
    _, layer, weight, _ = build(*CASES["conv"])
    start = quantize_weight(weight, 3, layer.axis)
    assert descend(layer, weight, [start], moments(layer).second, passes=0) == [start]
    assert affordable_passes(layer, 5) == 4
    assert affordable_passes(layer, 10**9) == 0


def test_few_columns_are_not_learned_by_heart():
    _, layer, weight, _ = build("Gemm", (12, 48), (32, 48), {"transB": 1})
    few, unseen = moments(layer, columns=40), moments(layer, seed=2).second
    assert few.independent < 2 * 48
    first = gptq(layer, weight, few, (3,))[3]
    np.testing.assert_array_equal(gptq(layer, weight, few, (3,), improve=descend)[3].codes, first.codes)
    (learned,) = descend(layer, weight, [first], few.second)
    ratio = (
        row_errors(layer, weight, learned.dequantize(), unseen).sum()
        / row_errors(layer, weight, first.dequantize(), unseen).sum()
    )
    assert ratio > 1


def test_steps_and_limits_of_rows_are_held_once_for_all_inputs(monkeypatch):
    """Memory of a descent is that of codes, whatever the number of inputs."""
    _, layer, weight, _ = build(*CASES["gemm"])
    start = quantize_weight(weight, 3, layer.axis)
    inner, laid = coordinate_descent._sweep, []

    def watched(codes, slope, scale, curvature, low, high, second, *, last):
        laid.extend((scale, low, high))
        return inner(codes, slope, scale, curvature, low, high, second, last=last)

    monkeypatch.setattr(coordinate_descent, "_sweep", watched)
    descend(layer, weight, [start], moments(layer).second, passes=1)
    assert [len(part) for part in laid] == [1, 1, 1]
