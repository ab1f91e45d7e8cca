"""Blocks that are done are taken up again by an attempt at the same plan, and by no other."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch

from quant_core.calibration import Samples
from quant_core.checkpoints import TUNING, Checkpoints
from quant_core.codes import ActivationGrid, CorrectedBias, NarrowChannels
from quant_core.file_making.choice import Choice
from quant_core.file_making.islands import Islands
from quant_core.file_making.plan_tuning import _find, _fingerprint, _keep, _probe, correct_biases, tune_plan
from quant_core.pipeline import quantize
from quant_core.quantizers import quantize_weight
from quant_core.quantizers.tuning.block_reconstruction import ReconstructedBlocks
from quant_core.quantizers.tuning.reconstruction import Reconstructed
from quant_core.sensitivity.objective import Objective, Term
from quant_core.spec import QuantizeSpec
from tests.quant_core.export.networks import HEADER, parse


def test_what_was_kept_is_found_for_the_same_plan(tmp_path):
    rng = np.random.default_rng(0)
    bias = CorrectedBias("b", rng.standard_normal(4).astype(np.float32))
    weights = {
        "first": replace(quantize_weight(rng.standard_normal((4, 6)).astype(np.float32), 2, 0), bias=bias),
        "second": quantize_weight(rng.standard_normal((3, 4)).astype(np.float32), 4, 0),
    }
    told = []
    checkpoints = Checkpoints(tmp_path, told.append)
    assert _find(checkpoints, weights, "a") is None
    assert _find(None, weights, "a") is None
    _keep(checkpoints, ReconstructedBlocks(weights, ((0.5, 0.25), (0.125, 0.5))), "a")
    assert told == [TUNING]
    found = _find(checkpoints, weights, "a")
    assert found.errors == ((0.5, 0.25), (0.125, 0.5))
    for name, weight in weights.items():
        np.testing.assert_array_equal(found.weights[name].codes, weight.codes)
        np.testing.assert_array_equal(found.weights[name].scale, weight.scale)
    np.testing.assert_array_equal(found.weights["first"].bias.values, bias.values)
    assert _find(checkpoints, weights, "b") is None


def test_files_that_tuning_tells_apart_differ_in_codes_channels_or_activations():
    rng = np.random.default_rng(0)
    weight = quantize_weight(rng.standard_normal((4, 6)).astype(np.float32), 4, 0)
    narrow = NarrowChannels(2, np.array([True, False, False, False]))
    coarser = quantize_weight(weight.dequantize(), 3, 0)
    grid = ActivationGrid(0.5, 3)
    starts = [
        ({"w": weight}, {"x": grid}),
        ({"w": weight}, {}),
        ({"w": weight}, {"x": replace(grid, zero_point=4)}),
        ({"w": replace(weight, narrow=narrow)}, {"x": grid}),
        ({"w": replace(weight, narrow=replace(narrow, channels=~narrow.channels))}, {"x": grid}),
        ({"w": coarser}, {"x": grid}),
    ]
    assert len({_fingerprint(*start) for start in starts}) == len(starts)
    assert _fingerprint(*starts[0]) == _fingerprint({"w": replace(weight)}, {"x": replace(grid)})


@pytest.mark.parametrize("kind", ["kl", "squared_error"])
def test_draws_have_the_curvature_of_the_loss(kind):
    objective = Objective((Term("y", "y", kind),))
    logits = torch.tensor([[0.3, -1.0, 0.8]], dtype=torch.float64).repeat(4000, 1).requires_grad_()
    batch = Samples(inputs={"x": np.zeros((len(logits), 1), np.float32)})
    chance = torch.Generator().manual_seed(0)
    (draws,) = torch.autograd.grad(_probe(objective, {"y": logits}, batch, chance), logits)
    found = (draws[:, :, None] * draws[:, None]).mean(0)
    p = logits.detach()[0].softmax(0)
    exact = torch.diag(p) - p[:, None] * p[None] if kind == "kl" else torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0)


@pytest.mark.parametrize("rounding", ["reconstruction", "brecq"])
def test_a_plan_of_nothing_but_float_is_left_as_it_is(rounding):
    spec = QuantizeSpec.model_validate({"rounding": rounding})
    nothing = cast("Any", None)
    choice = Choice(nothing, nothing, {}, {})
    assert tune_plan(nothing, spec, nothing, nothing, choice, lambda *_: None).weights == {}


def test_the_report_tells_where_reconstruction_did_not_help(tmp_path, monkeypatch):
    net = (
        "g (float[n,4,8,8] x) => (float[n,6] y) { a = Conv(x, w) r = Relu(a) f = Flatten(r) y = Gemm(f, v) }"
    )
    onnx.save(parse(HEADER + net, w=(8, 4, 3, 3), v=(288, 6)), tmp_path / "net.onnx")
    x = np.random.default_rng(0).standard_normal((24, 4, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", x=x)
    monkeypatch.setattr(
        "quant_core.file_making.plan_tuning.reconstruct",
        lambda _, weights, *__, **___: Reconstructed(weights, before=0.25, after=0.5, better=False),
    )
    spec = QuantizeSpec.model_validate({"bits": [4], "rounding": "reconstruction", "workers": 1})
    report = quantize(tmp_path / "net.onnx", tmp_path / "samples.npz", spec, tmp_path / "out")
    assert any("no closer" in warning and "0.25" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("asked", "islands", "corrected"),
    [
        ({}, None, ["static"]),
        ({}, Islands(shares={"island": 0.5}, before=1.0), ["static", "island"]),
        ({}, Islands(before=0.01), None),
        ({"bias_correction": False}, None, None),
    ],
    ids=["no islands", "islands", "harmless", "not asked for"],
)
def test_biases_of_layers_that_round_activations_or_might_have_are_corrected(
    monkeypatch, asked, islands, corrected
):
    seen = []

    def correct(_network, _graph, layers, weights, *_others):
        seen.append([layer.name for layer in layers])
        return weights | {"static": "corrected"}

    monkeypatch.setattr("quant_core.file_making.plan_tuning.correct_means", correct)
    forms = {"static": "static", "island": "weight_only", "other": "weight_only"}
    layers = [SimpleNamespace(name=name) for name in forms]
    job = cast("Any", SimpleNamespace(layers=layers, graph=None, network=None))
    plan, placement = SimpleNamespace(predicted_loss=2.0), SimpleNamespace(forms=forms)
    choice = Choice(cast("Any", plan), cast("Any", placement), {}, cast("Any", dict.fromkeys(forms)))
    spec = QuantizeSpec.model_validate(asked)
    found = correct_biases(job, spec, choice, cast("Any", None), islands, lambda *_: None)
    assert seen == ([] if corrected is None else [corrected])
    assert found == choice.weights | ({} if corrected is None else {"static": "corrected"})
