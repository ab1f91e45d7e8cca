"""Every method by name on one tiny network: what it gives, what it leaves null, and against exact answers."""

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch

from quant_core.ingest.layer import Layer
from quant_core.sensitivity import Objective, Term, methods
from quant_core.sensitivity.estimators.activations import ActivationTraces
from quant_core.sensitivity.estimators.kfac import kfac
from quant_core.sensitivity.methods import FIRST, METHODS
from quant_core.sensitivity.question import Question
from quant_core.sensitivity.running.workers import OneThread
from quant_core.sensitivity.spectra import spectra
from quant_core.sensitivity.table import answer
from quant_core.spec import SensitivityMethod, SensitivityTable

BITS = (2, 4, 32)
KL = Objective((Term("y", "y", "kl"),))
TRACES = {"gauss_newton", "hawq_v2", "hutch++", "gnb", "fisher", "kfac"}
EXPLAINED = {"output", "interaction", "pqi"}


@pytest.fixture(scope="module")
def net(tiny: Any) -> Any:
    return tiny("Relu")


@pytest.fixture(scope="module")
def question(net: Any, samples: torch.Tensor, rounded: Any) -> Question:
    def quantized(layer: Layer, bits: int) -> Any:
        return rounded(net.weights[layer.weight], bits)

    return Question(net.program, net.layers, {"x": samples}, quantized, KL, bits=BITS, max_probes=300, seed=1)


def test_every_name_of_the_request_has_a_method() -> None:
    assert set(METHODS) == set(get_args(SensitivityMethod))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_each_method_gives_what_it_can_and_leaves_the_rest_null(
    net: Any, samples: torch.Tensor, question: Question, method: Any
) -> None:
    found = answer(question, method, "nearest")
    table = found.table
    assert SensitivityTable.model_validate_json(table.model_dump_json()) == table
    assert answer(question, method, "nearest").table == table
    assert (table.method, table.rounding, table.seed) == (method, "nearest", 1)
    assert table.stopped
    assert 0 < table.samples <= len(samples)
    reference = net.forward(samples, net.weights).log_softmax(-1)

    def divergence(z: torch.Tensor) -> torch.Tensor:
        return (reference.exp() * (reference - z.log_softmax(-1))).sum(-1).mean()

    exact = net.exact_traces(divergence, samples)
    for row, trace in zip(table.layers, exact, strict=True):
        assert row.perturbation[2] > row.perturbation[4] > row.perturbation[32] == 0
        assert row.activation_trace is None
        if method == "orm":
            assert (row.sensitivity, row.sensitivity_stderr) == ({}, None)
            assert row.orthogonality is not None
        else:
            assert row.sensitivity[2] > row.sensitivity[4] > row.sensitivity[32] == 0
            assert row.orthogonality is None
        if method in TRACES | EXPLAINED:
            # The layers of a ReLU network are its Gauss-Newton matrix's; labels that the model gives have its mean.
            assert row.trace == pytest.approx(trace, rel=0.6 if method == "fisher" else 0.25)
            assert row.trace_stderr is not None
            assert abs(row.trace - trace) < 3 * row.trace_stderr
        else:
            assert row.trace is None
        assert (row.eigenvalue is not None) == (method == "hawq")
    assert (found.interactions is not None) == (method == "interaction")
    assert (table.trace_method is not None) == (method in TRACES | EXPLAINED)


@pytest.mark.parametrize("method", sorted({*METHODS} - {"orm"}))
def test_a_layer_that_nothing_counted_reads_loses_nothing(question: Question, method: Any) -> None:
    early = replace(question, objective=Objective((Term("m", "m", "kl"),)), max_probes=20)
    first, second = answer(early, method, activations=True).table.layers
    assert first.sensitivity[2] > 0
    assert first.activation_trace is not None
    assert first.activation_trace > 0
    assert second.sensitivity == dict.fromkeys(BITS, 0.0)
    assert (second.trace, second.activation_trace) == (first.trace and 0.0, 0.0)


def test_the_spectrum_of_a_layer_that_nothing_counted_reads_is_zero(question: Question) -> None:
    found = spectra(replace(question, objective=Objective((Term("m", "m", "kl"),))))
    assert found["first"].extremes[1] > 0
    assert found["second"].extremes == (0, 0)


@pytest.mark.parametrize("method", ["output", "interaction", "pqi"])
def test_measured_methods_give_the_measured_increase(
    net: Any, samples: torch.Tensor, question: Question, rounded: Any, method: Any
) -> None:
    table = answer(replace(question, score_tolerance=0.0), method).table
    reference = net.forward(samples, net.weights).log_softmax(-1)
    for row in table.layers:
        for bits in (2, 4):
            changed = torch.from_numpy(rounded(net.weights[row.weight], bits).dequantize())
            z = net.forward(samples, {**net.weights, row.weight: changed}).log_softmax(-1)
            measured = float((reference.exp() * (reference - z)).sum(-1).mean())
            # Within an interval of the path the network has kinks, which eight points do not all see.
            assert row.sensitivity[bits] == pytest.approx(measured, rel=0.05 if method == "pqi" else 1e-4)


def test_few_samples_with_few_outputs_are_worked_out_exactly(net: Any, question: Question) -> None:
    few = replace(question, feeds={"x": question.feeds["x"][:20]}, max_probes=2000)
    exact = answer(few, "gauss_newton").table
    assert exact.stopped == "exact over outputs"
    assert exact.probes == 0
    probed = answer(replace(few, max_probes=50), "gauss_newton").table
    assert 0 < probed.probes <= 50
    for a, b in zip(exact.layers, probed.layers, strict=True):
        assert a.trace == pytest.approx(b.trace, rel=0.5)


@pytest.mark.parametrize("fixed_batch", [None, 4])
def test_traces_are_exact_where_that_takes_no_more_passes_than_probes_would(
    question: Question, fixed_batch: int | None
) -> None:
    asked = replace(question, feeds={"x": question.feeds["x"][:40]}, fixed_batch=fixed_batch)
    passes = asked.samples * 3 * (fixed_batch or 1)
    enough = -(-passes // asked.cut(FIRST).size)
    assert answer(replace(asked, max_probes=enough), "gauss_newton").table.probes == 0
    assert answer(replace(asked, max_probes=enough - 1), "gauss_newton").table.probes > 0


@pytest.mark.parametrize(("memory", "groups"), [(424, [2]), (423, [1, 1])])
def test_layers_whose_factors_do_not_fit_together_are_taken_apart(
    question: Question, monkeypatch: pytest.MonkeyPatch, memory: int, groups: list[int]
) -> None:
    """Factors of 5 x 5 and 6 x 6 for the first layer, of 6 x 6 and 3 x 3 for the second, four bytes each."""
    whole, taken = answer(question, "kfac").table, list[int]()

    def counted(program: Any, layers: Any, *rest: Any, **options: Any) -> Any:
        taken.append(len(layers))
        return kfac(program, layers, *rest, **options)

    monkeypatch.setattr(methods, "kfac", counted)
    monkeypatch.setattr(methods, "MEMORY", memory)
    found = answer(question, "kfac").table
    assert taken == groups
    for a, b in zip(found.layers, whole.layers, strict=True):
        assert a.sensitivity == pytest.approx(b.sensitivity, rel=1e-6)


def test_activation_traces_come_beside_any_method(
    net: Any, samples: torch.Tensor, question: Question
) -> None:
    told: list[float] = []
    asked = replace(question, on_progress=lambda fraction, _: told.append(fraction))
    table = answer(asked, "gauss_newton", activations=True).table
    assert told == sorted(told)
    h = torch.relu(samples.double() @ net.weights["one"].double() + _bias(net))
    p = (h @ net.weights["two"].double()).softmax(-1)
    curvature = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
    two = net.weights["two"].double()
    exact = float(torch.einsum("hc,ncd,hd->n", two, curvature, two).mean())
    row = table.layers[1]
    assert row.activation_trace is not None
    assert row.activation_trace_stderr is not None
    assert abs(row.activation_trace - exact) < 3 * row.activation_trace_stderr


def _bias(net: Any) -> torch.Tensor:
    bias = net.program.weights["bias"]
    assert isinstance(bias, torch.Tensor)
    return bias.double()


@pytest.mark.parametrize("method", ["gnb", "hutch++", "interaction", "pqi", "fisher", "kfac", "hawq"])
def test_a_layer_that_is_not_finite_is_named_and_leaves_the_others_usable(
    net: Any, question: Question, rounded: Any, method: Any
) -> None:
    def quantized(layer: Layer, bits: int) -> Any:
        made = rounded(net.weights[layer.weight], bits)
        if layer.name == "second" and bits == 2:
            made.weight[0, 0] = np.inf
        return made

    table = answer(replace(question, quantized=quantized), method).table
    assert set(table.layers[0].sensitivity) == {2, 4, 32}
    assert set(table.layers[1].sensitivity) == {4, 32}
    assert [said for said in table.warnings if "second" in said and "2 bits" in said]
    assert not [said for said in table.warnings if "first" in said]
    SensitivityTable.model_validate_json(table.model_dump_json())


def test_an_input_whose_trace_is_not_finite_is_named(
    question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = ActivationTraces(("x", "h"), np.array([1.0, np.nan]), np.ones(2), (5, 4), 1, 96, "probe limit")
    monkeypatch.setattr("quant_core.sensitivity.table.explaining_activations", lambda _: broken)
    table = answer(question, "gauss_newton", activations=True).table
    (reader,) = (layer.name for layer in question.layers if "x" not in layer.inputs)
    assert table.warnings == (f"{reader}: the trace in its input is not finite.",)
    assert [row.activation_trace for row in table.layers] == [1.0, None]


@pytest.mark.parametrize("method", ["gauss_newton", "hawq_v2", "output", "interaction", "pqi"])
@pytest.mark.parametrize("crew", [None, OneThread()])
def test_estimates_end_when_time_is_up_and_say_so(question: Question, method: Any, crew: Any) -> None:
    asked = replace(question, crew=crew, tolerance=1e-9, score_tolerance=1e-9, max_probes=60)
    hasty = answer(replace(asked, seconds=1e-9), method).table
    assert hasty.stopped.startswith("time limit")
    assert hasty.samples < 96
    assert hasty.probes == ("exact" not in hasty.stopped)
    patient = answer(replace(asked, seconds=1e9), method).table
    assert patient == answer(asked, method).table
    assert "time" not in patient.stopped
