"""AdaRound's formulas, and its choices held against all choices up and down there are."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from quant_core.quantizers import quantize_weight
from quant_core.quantizers.rounding.adaround import UpOrDown, adaround, affordable_steps
from quant_core.quantizers.rounding.gptq import gptq
from quant_core.spec import WeightGrid
from tests.quant_core.quantizers.rounding.layers import CASES, build, moments, row_errors


def choice(codes=(0.0, 1.0, -2.0, 1.0), weight=(0.3, 0.8, -2.6, 3.0), low=-2, high=1):
    return UpOrDown(torch.tensor(codes), torch.tensor(weight), low, high)


def test_before_any_step_codes_are_those_given_and_shares_those_of_the_float_weight():
    found = choice()
    assert found.rounded().tolist() == [0, 1, -2, 1]
    # 0.3 of the way up; 0.8 of the way; below the grid; above it
    np.testing.assert_allclose(found.shares().detach(), [0.3, 0.8, 0, 1], atol=1e-6)
    far = choice((0.0,), (0.9,))
    assert far.rounded().tolist() == [0]
    np.testing.assert_allclose(far.shares().detach(), [0.45], atol=1e-6)


def test_shares_and_penalty_are_those_of_the_paper():
    found = choice()
    with torch.no_grad():
        found.parameter.copy_(torch.tensor([-5.0, 0.0, 0.4, 5.0]))
    sigmoid = 1 / (1 + np.exp([5.0, 0.0, -0.4, -5.0]))
    shares = np.clip(sigmoid * 1.2 - 0.1, 0, 1)
    np.testing.assert_allclose(found.shares().detach(), shares, atol=1e-6)
    np.testing.assert_allclose(found.values().detach(), np.floor([0, 0, -2, 0]) + shares, atol=1e-6)
    assert float(found.penalty(0.1)) == 0
    # beta is 20 when the penalty sets in, 2 at the end
    for progress, beta in ((0.2, 20), (1.0, 2)):
        expected = np.mean(1 - np.abs(2 * shares - 1) ** beta)
        assert float(found.penalty(progress).detach()) == pytest.approx(expected, rel=1e-5)


def test_gradients_are_those_of_the_formula():
    found = choice()
    weights = torch.tensor([1.0, -2.0, 3.0, 0.5])
    (found.values() * weights).sum().backward()
    with torch.no_grad():
        inner = torch.sigmoid(found.parameter)
        slope = torch.where((found.shares() > 0) & (found.shares() < 1), 1.2 * inner * (1 - inner), 0.0)
    np.testing.assert_allclose(found.parameter.grad[:2], (weights * slope)[:2], rtol=1e-4)


def test_rows_come_close_to_the_best_of_all_choices_up_and_down():
    _, layer, weight, _ = build("Gemm", (12, 6), (24, 6), {"transB": 1})
    second = moments(layer).second
    start = quantize_weight(weight, 3, layer.axis, WeightGrid(range_search="minmax"))
    with torch.no_grad():  # as layers are rounded side by side
        (found,) = adaround(layer, weight, [start], second)
    scale = start.scale[:, None]
    best = np.min(
        [
            row_errors(layer, weight, np.clip(np.floor(weight / scale) + up, -4, 3) * scale, second)
            for up in product((0, 1), repeat=6)
        ],
        axis=0,
    ).sum()
    before, after = (
        row_errors(layer, weight, w.dequantize(), second).sum() / best - 1 for w in (start, found)
    )
    assert before > 0.3
    assert -1e-6 <= after < 0.5 * before
    moved = np.abs(found.codes - weight / scale)
    assert (moved < 1 + 1e-5).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("grid", [WeightGrid(), WeightGrid("block", 16, symmetric=False)])
def test_no_row_gets_worse(case, grid):
    _, layer, weight, _ = build(*CASES[case])
    seen = moments(layer)
    starts = [gptq(layer, weight, seen, (bits,), grid_of=lambda _: grid)[bits] for bits in (2, 4)]
    for start, found in zip(starts, adaround(layer, weight, starts, seen.second, steps=40), strict=True):
        before, after = (row_errors(layer, weight, w.dequantize(), seen.second) for w in (start, found))
        assert (after <= before * (1 + 1e-4) + 1e-6).all()
        assert (np.abs(found.codes.astype(int) - start.codes) <= 1).all()
        np.testing.assert_array_equal(found.scale, start.scale)


def test_without_steps_codes_are_those_given_and_large_layers_get_fewer():
    _, layer, weight, _ = build(*CASES["conv"])
    seen = moments(layer)
    start = gptq(layer, weight, seen, (2,))[2]
    (kept,) = adaround(layer, weight, [start], seen.second, steps=0)
    np.testing.assert_array_equal(kept.codes, start.codes)
    assert affordable_steps(layer, 5) == 200
    assert affordable_steps(layer, 10**9) == 0
