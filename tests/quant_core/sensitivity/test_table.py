from typing import Any

import numpy as np
import pytest
import torch

from quant_core.ingest.layer import Layer
from quant_core.sensitivity import Objective, Question, Term, answer, missing_scores
from quant_core.spec import SensitivityTable

BITS = (2, 4, 8, 32)
KL = Objective((Term("y", "y", "kl"),), guessed="named like class scores")


@pytest.mark.parametrize("method", ["gauss_newton", "hawq_v2"])
def test_trace_methods_score_by_hawq_v2(tiny: Any, samples: torch.Tensor, rounded: Any, method: Any) -> None:
    net = tiny("Relu")

    def quantized(layer: Layer, bits: int) -> Any:
        return rounded(net.weights[layer.weight], bits)

    question = Question(net.program, net.layers, {"x": samples}, quantized, KL, bits=BITS, max_probes=200)
    table = answer(question, method).table
    assert table.method == table.trace_method == method
    assert table.loss == "kl"
    assert table.loss_guessed == "named like class scores"
    for row, weight in zip(table.layers, net.weights.values(), strict=True):
        assert row.sensitivity[32] == row.perturbation[32] == 0
        for bits in (2, 4, 8):
            norm = float(((rounded(weight, bits).dequantize() - weight.numpy()) ** 2).sum())
            assert row.perturbation[bits] == pytest.approx(norm, rel=1e-5)
            assert row.trace is not None
            assert row.sensitivity[bits] == pytest.approx(row.trace / weight.numel() * norm, rel=1e-5)
            assert row.sensitivity_stderr is not None
            assert row.trace_stderr is not None
            assert row.sensitivity_stderr[bits] == pytest.approx(
                row.trace_stderr / weight.numel() * norm, rel=1e-5
            )


def test_output_scores_come_with_traces_and_progress(tiny: Any, samples: torch.Tensor, rounded: Any) -> None:
    net = tiny("Relu")
    seen: list[tuple[float, str]] = []

    def build(seed: int) -> SensitivityTable:
        question = Question(
            net.program,
            net.layers,
            {"x": samples},
            lambda layer, bits: rounded(net.weights[layer.weight], bits),
            KL,
            bits=BITS,
            seed=seed,
            score_tolerance=0,
            on_progress=lambda fraction, message: seen.append((fraction, message)),
        )
        return answer(question, "output").table

    table = build(3)
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert table.method == "output"
    assert table.trace_method == "gauss_newton"
    assert table.samples == 96
    assert build(3) == table
    assert SensitivityTable.model_validate_json(table.model_dump_json()) == table
    for row in table.layers:
        assert row.sensitivity[2] > row.sensitivity[4] > row.sensitivity[8] > row.sensitivity[32] == 0
    assert missing_scores(table, BITS) == ()


def test_layers_may_be_asked_for_different_widths(tiny: Any, samples: torch.Tensor, rounded: Any) -> None:
    net = tiny("Relu")
    bits = {"first": (8,), "second": (2, 4, 32)}

    def quantized(layer: Layer, width: int) -> Any:
        assert width in bits[layer.name]
        return rounded(net.weights[layer.weight], width)

    question = Question(net.program, net.layers, {"x": samples}, quantized, KL, bits=bits)
    table = answer(question, "output").table
    assert [tuple(row.sensitivity) for row in table.layers] == [(8,), (2, 4, 32)]
    assert missing_scores(table, bits) == ()


@pytest.mark.parametrize("method", ["output", "gauss_newton"])
def test_a_single_sample_has_no_standard_error_over_samples(
    tiny: Any, samples: torch.Tensor, rounded: Any, method: Any
) -> None:
    net = tiny("Relu")
    question = Question(
        net.program,
        net.layers,
        {"x": samples[:1]},
        lambda layer, bits: rounded(net.weights[layer.weight], bits),
        KL,
        bits=BITS,
        max_probes=1,
    )
    table = answer(question, method).table
    assert SensitivityTable.model_validate_json(table.model_dump_json()) == table
    for row in table.layers:
        assert set(row.sensitivity) == set(BITS)
        assert row.trace_stderr is None
        assert row.sensitivity_stderr == {32: 0.0}


def test_scores_that_are_not_finite_are_left_out_and_named(
    tiny: Any, samples: torch.Tensor, rounded: Any
) -> None:
    net = tiny("Relu")

    def quantized(layer: Layer, bits: int) -> Any:
        made = rounded(net.weights[layer.weight], bits)
        if layer.name == "second" and bits == 2:
            made.weight[0, 0] = np.inf
        return made

    question = Question(net.program, net.layers, {"x": samples}, quantized, KL, bits=BITS)
    table = answer(question, "output").table
    assert set(table.layers[0].sensitivity) == {2, 4, 8, 32}
    assert set(table.layers[1].sensitivity) == {4, 8, 32}
    (warning,) = missing_scores(table, BITS)
    assert "second" in warning
    assert " 2 bits" in warning
    SensitivityTable.model_validate_json(table.model_dump_json())
