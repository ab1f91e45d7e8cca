import numpy as np
import pytest
import torch

from quant_core.calibration import Samples
from quant_core.quantizers import quantize_weight
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.grids import range_search
from quant_core.quantizers.moments.calibration_moments import CalibrationMoments, KeptMoments
from quant_core.quantizers.moments.input_moments import InputMoments, has_moments, input_moments
from quant_core.quantizers.moments.rows import from_rows, rows_shape, scale_to_rows, to_rows
from quant_core.quantizers.rounding.coordinate_descent import descend
from quant_core.quantizers.rounding.gptq import gptq
from quant_core.quantizers.rounding.round_weights import knows_more, round_weights
from quant_core.spec import WeightOptions
from tests.quant_core.quantizers.rounding.layers import CASES, build, output_error


# An output of a transposed convolution adds up products of several positions.
@pytest.mark.parametrize("case", [case for case in CASES if case != "transposed"])
def test_moments_foretell_the_output_of_any_weight(case):
    model, layer, weight, program = build(*CASES[case])
    x = np.random.default_rng(1).standard_normal(CASES[case][1]).astype(np.float32)
    samples = Samples(inputs={"x": x})
    assert has_moments(layer)
    moments = input_moments(FloatNetwork(program, model, [layer], 2), [layer], samples, seed=0)["layer"]
    rows = to_rows(layer, weight)
    assert tuple(rows.shape) == rows_shape(layer)
    predicted = torch.einsum("goi,gij,goj->go", rows, moments.second, rows).flatten()
    with torch.no_grad():
        y = program.evaluate({"x": torch.from_numpy(x)})["y"]
    channels = y.movedim(1, -1) if layer.op == "Conv" else y
    expected = channels.reshape(-1, channels.shape[-1]).square().mean(0)
    torch.testing.assert_close(predicted, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_rows_come_back(case):
    _, layer, weight, _ = build(*CASES[case])
    np.testing.assert_array_equal(from_rows(layer, to_rows(layer, weight)), weight)
    quantized = quantize_weight(weight, 4, layer.axis)
    rows = to_rows(layer, quantized.codes).float() * scale_to_rows(layer, quantized.scale)
    np.testing.assert_allclose(from_rows(layer, rows), quantized.dequantize(), rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_output_error_is_below_that_of_nearest_rounding(case):
    _, layer, weight, _ = build(*CASES[case])
    groups, _, inputs = rows_shape(layer)
    mixing = torch.randn(groups, inputs, inputs, generator=torch.Generator().manual_seed(1))
    second = mixing @ mixing.transpose(1, 2) / inputs
    moments = InputMoments(second, torch.zeros(groups, inputs), 10**6, 10**6)
    rounded = gptq(layer, weight, moments, [2, 3, 4, 8])
    for bits in (3, 4):
        ours = output_error(layer, weight, rounded[bits], second)
        assert ours < output_error(layer, weight, quantize_weight(weight, bits, layer.axis), second)
    np.testing.assert_array_equal(gptq(layer, weight, moments, [3])[3].codes, rounded[3].codes)


def test_independent_inputs_are_rounded_to_the_nearest_code():
    _, layer, weight, _ = build(*CASES["gemm"])
    second = torch.diag(torch.rand(7, generator=torch.Generator().manual_seed(0)) + 0.1)[None]
    moments = InputMoments(second, torch.zeros(1, 7), 10**6, 10**6)
    np.testing.assert_array_equal(
        gptq(layer, weight, moments, [3])[3].codes, quantize_weight(weight, 3, 0).codes
    )


def test_dead_inputs_do_no_harm():
    _, layer, weight, _ = build(*CASES["gemm"])
    moments = InputMoments(torch.zeros(1, 7, 7), torch.zeros(1, 7), 100, 100)
    np.testing.assert_array_equal(
        gptq(layer, weight, moments, [4])[4].codes, quantize_weight(weight, 4, 0).codes
    )


def test_few_columns_are_trusted_less():
    x = torch.randn(20, 12, generator=torch.Generator().manual_seed(0))
    second = (x.T @ x / 20)[None]
    true = torch.eye(12)[None]
    raw = float((second - true).square().sum())
    shrunk = InputMoments(second, x.mean(0)[None], 20, 20).shrunk()
    assert float((shrunk - true).square().sum()) < raw / 2
    many = InputMoments(second, x.mean(0)[None], 10**9, 10**9).shrunk()
    torch.testing.assert_close(many, second, rtol=1e-4, atol=1e-6)


def rounded_by_definition(rows, second, steps, bits, beta):
    """FOEM said again with an inverse at every step, one row at a time: no factor, no blocks."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    order = np.argsort(-np.diag(second), kind="stable")
    H = second + 0.01 * np.mean(np.diag(second)) * np.eye(len(second))
    codes = np.zeros(rows.shape)
    for row, step, code in zip(rows, steps, codes, strict=True):
        w = row.astype(np.float64).copy()
        for k, here in enumerate(order):
            rest = order[k:]
            inverse = np.linalg.inv(H[np.ix_(rest, rest)])
            w[here] -= (inverse @ (beta * H[np.ix_(rest, rest)] @ (w[rest] - row[rest])))[0]
            code[here] = np.clip(np.round(w[here] / step), low, high)
            kept = (inverse @ (beta * H[np.ix_(rest, rest)] @ (w[rest] - row[rest])))[0]
            w[rest] -= (w[here] - code[here] * step - kept) / inverse[0, 0] * inverse[0]
    return codes


@pytest.mark.parametrize("beta", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("case", ["conv", "gemm", "matmul", "transposed"])
def test_first_order_term_agrees_with_its_definition(case, beta):
    _, layer, weight, _ = build(*CASES[case])
    inputs = rows_shape(layer)[2]
    mixing = torch.randn(1, inputs, inputs, generator=torch.Generator().manual_seed(1))
    second = mixing @ mixing.transpose(1, 2) / inputs
    moments = InputMoments(second, torch.zeros(1, inputs), 10**12, 10**12)
    ours = gptq(layer, weight, moments, [3], beta=beta)[3]
    expected = rounded_by_definition(
        to_rows(layer, weight)[0].numpy(),
        second[0].double().numpy(),
        scale_to_rows(layer, ours.scale)[0, :, 0].double().numpy(),
        3,
        beta,
    )
    np.testing.assert_array_equal(to_rows(layer, ours.codes)[0].numpy(), expected)


@pytest.mark.parametrize("case", CASES)
def test_first_order_term_of_weight_zero_is_gptq_to_the_last_bit(case):
    model, layer, _, program = build(*CASES[case])
    shape = (40, *CASES[case][1][1:])
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((40, *[1] * (len(shape) - 1)))
    samples = Samples(inputs={"x": (shared + 0.3 * rng.standard_normal(shape)).astype(np.float32)})
    rounded = {}
    for rounding, beta in (("gptq", 0.3), ("foem", 0.0), ("foem", 0.3)):
        rounded[rounding, beta] = round_weights(
            CalibrationMoments(FloatNetwork(program, model, [layer], 4), samples, 0),
            {"layer": [2, 3, 4, 8]},
            WeightOptions(rounding=rounding, foem_beta=beta),
            on_progress=lambda *_: None,
        )["layer"]
    for bits in (2, 3, 4, 8):
        plain, zero = rounded["gptq", 0.3][bits], rounded["foem", 0.0][bits]
        np.testing.assert_array_equal(plain.codes, zero.codes)
        np.testing.assert_array_equal(plain.scale, zero.scale)
    changed = sum((rounded["foem", 0.3][b].codes != rounded["gptq", 0.3][b].codes).sum() for b in (3, 4, 8))
    assert changed > 0


def test_more_samples_join_moments_that_are_kept_and_leave_ranges_as_they_are():
    model, layer, weight, program = build(*CASES["conv"])
    x = np.random.default_rng(1).standard_normal((9, *CASES["conv"][1][1:])).astype(np.float32)
    first, rest = Samples(inputs={"x": x[:6]}), Samples(inputs={"x": x[6:]})
    kept = KeptMoments()

    def rounded(samples, given=None, **options):
        return round_weights(
            CalibrationMoments(FloatNetwork(program, model, [layer], 3), samples, 0, **options),
            {"layer": (3, 4)},
            WeightOptions(),
            on_progress=lambda fraction, message: None,
            given=given,
        )

    start = rounded(first, kept=kept)
    assert set(kept.held) == {"layer"}
    together = rounded(first, more=rest, given=start, kept=kept)["layer"]
    afresh = rounded(first, more=rest, given=start)["layer"]
    whole = input_moments(FloatNetwork(program, model, [layer], 9), [layer], Samples(inputs={"x": x}), seed=0)
    joined = gptq(layer, weight, whole["layer"], (3, 4), improve=descend, given=start["layer"])
    for bits in (3, 4):
        np.testing.assert_array_equal(together[bits].scale, start["layer"][bits].scale)
        np.testing.assert_array_equal(together[bits].codes, afresh[bits].codes)
        assert np.mean(together[bits].codes == joined[bits].codes) > 0.98


@pytest.mark.parametrize(("case", "inputs"), [("conv", 54), ("depthwise", 9), ("gemm", 7), ("transposed", 5)])
def test_codes_are_found_again_from_as_many_columns_as_inputs_on(case, inputs):
    _, layer, *_ = build(*CASES[case])
    assert rows_shape(layer)[2] == inputs
    enough = -(-inputs // 16)
    assert knows_more(layer, enough)
    assert not knows_more(layer, enough - 1)


@pytest.mark.parametrize(("channels", "rows"), [(8, 1), (7, 8)])
def test_in_long_rows_ranges_of_least_error_are_searched_where_weights_lie_far_out(
    channels, rows, monkeypatch
):
    _, layer, weight, _ = build("Conv", (3, channels, 9, 9), (8, channels, 3, 3), {})
    weight[3, 0, 0, 0] = 40
    plain, searched = range_search.search_symmetric, []

    def search(rows, elements, scales, bits, counts=None):
        searched.append((bits, len(rows)))
        return plain(rows, elements, scales, bits, counts)

    monkeypatch.setattr("quant_core.quantizers.grids.weight.search_symmetric", search)
    inputs = weight[0].size
    moments = InputMoments(torch.eye(inputs)[None], torch.zeros(1, inputs), 10_000, 1_000)
    gptq(layer, weight, moments, (2, 3, 4, 8), grid_of=WeightOptions().grid)
    assert searched == [(2, len(weight)), (3, rows), (4, rows)]
