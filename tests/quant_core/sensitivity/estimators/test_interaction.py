from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.errors import CancelledError
from quant_core.executor import compile_model
from quant_core.ingest.layer import Layer, Use
from quant_core.sensitivity import Objective, Term, output, split_batches
from quant_core.sensitivity.estimators import interaction
from quant_core.sensitivity.estimators.interaction import Interactions, interactions

BITS = (2, 3, 8)


def objective(kind: Any) -> Objective:
    return Objective((Term("y", "y", kind, weight=0.7),))


def measure(
    net: Any, samples: torch.Tensor, rounded: Any, kind: Any = "kl", **how: Any
) -> tuple[Interactions, list[list[Any]]]:
    quantized = [[rounded(weight, bits) for bits in BITS] for weight in net.weights.values()]
    labels = torch.arange(len(samples)) % 3
    batches = split_batches({"x": samples}, labels, sample_bytes=1, seed=0, largest=20, clusters=1)
    return interactions(net.program, net.layers, objective(kind), batches, quantized, **how), quantized


@pytest.mark.parametrize("kind", ["kl", "squared_error", "cross_entropy"])
def test_equals_the_products_through_the_dense_hessian_of_the_output(
    tiny: Any, samples: torch.Tensor, rounded: Any, kind: Any
) -> None:
    net = tiny("Tanh")
    found, quantized = measure(net, samples, rounded, kind)
    z = net.forward(samples, net.weights)
    p = z.softmax(-1)
    hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    if kind == "squared_error":
        hessian = torch.eye(3, dtype=p.dtype).expand(96, 3, 3)
    changes = torch.stack(
        [
            net.forward(samples, {**net.weights, name: torch.from_numpy(q.dequantize())}) - z
            for name, row in zip(net.weights, quantized, strict=True)
            for q in row
        ]
    )
    products = 0.7 * torch.einsum("anc,ncd,bnd->nab", changes, hessian, changes)
    mean = products.mean(dim=0).numpy()
    error = (products.std(dim=0) / 96**0.5).numpy()
    size = len(BITS)
    np.testing.assert_allclose(found.own.ravel(), mean.diagonal() / 2, rtol=1e-3)
    np.testing.assert_allclose(found.own_stderr.ravel(), error.diagonal() / 2, rtol=1e-2)
    np.testing.assert_allclose(found.pairs[0, :, 1, :], mean[:size, size:], rtol=1e-2, atol=1e-6)
    np.testing.assert_allclose(found.pairs_stderr[0, :, 1, :], error[:size, size:], rtol=1e-2, atol=1e-6)
    np.testing.assert_array_equal(found.pairs, found.pairs.transpose(2, 3, 0, 1))
    assert not found.pairs[0, :, 0, :].any()
    assert found.folded == 0


def test_increases_are_those_of_output(tiny: Any, samples: torch.Tensor, rounded: Any) -> None:
    net = tiny("Relu")
    found, quantized = measure(net, samples, rounded, tolerance=0.25)
    batches = split_batches({"x": samples}, None, sample_bytes=1, seed=0, largest=20, clusters=1)
    plain = output(net.program, net.layers, objective("kl"), batches, quantized, tolerance=0.25)
    np.testing.assert_array_equal(found.measured.increase, plain.increase)
    np.testing.assert_array_equal(found.measured.stderr, plain.stderr)
    assert (found.samples, found.stopped) == (plain.samples, plain.stopped)
    assert found.samples < 96


def parallel(seed: int = 0) -> tuple[Any, tuple[Layer, ...]]:
    # Three branches that are added up: changes of the output add up exactly.
    rng = np.random.default_rng(seed)
    text = ", ".join(
        f"float[5, 40] w{i} = {{{', '.join(repr(float(v)) for v in rng.normal(0, 1, 200).astype(np.float32))}}}"
        for i in range(3)
    )
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        net (float[N, 5] x) => (float[N, 40] y) <{text}>
        {{ a = MatMul(x, w0)  b = MatMul(x, w1)  c = MatMul(x, w2)  d = Add(a, b)  y = Add(d, c) }}"""
    )
    layers = tuple(
        Layer(f"l{i}", "MatMul", f"w{i}", (5, 40), 1, (Use(f"l{i}", "MatMul", "x", out, 1),))
        for i, out in enumerate("abc")
    )
    return compile_model(model), layers


def test_predicts_whole_plans_exactly_where_changes_add_up(samples: torch.Tensor, rounded: Any) -> None:
    program, layers = parallel()
    quantized = [[rounded(program.weights[layer.weight], bits) for bits in BITS] for layer in layers]
    batches = split_batches({"x": samples}, None, sample_bytes=1, seed=0, clusters=1)
    found = interactions(program, layers, objective("squared_error"), batches, quantized)
    y = program.evaluate({"x": samples})["y"]
    for choice in ([0, 1, 2], [2, 0, 0], [-1, 1, 0], [-1, -1, -1]):
        weights = {
            layer.weight: torch.from_numpy(quantized[i][k].dequantize())
            for i, (layer, k) in enumerate(zip(layers, choice, strict=True))
            if k >= 0
        }
        changed = program.evaluate({"x": samples}, weights=weights)["y"]
        expected = float(0.7 * 0.5 * (changed - y).square().sum(-1).mean())
        assert found.plan_loss(choice) == pytest.approx(expected, rel=1e-4)
        assert found.plan_loss(choice, curvature=True) == pytest.approx(expected, rel=1e-4)


def test_wide_outputs_are_folded_without_bias(
    samples: torch.Tensor, rounded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, layers = parallel()
    quantized = [[rounded(program.weights[layer.weight], bits) for bits in (3, 4)] for layer in layers]
    batches = split_batches({"x": samples}, None, sample_bytes=1, seed=0, clusters=1)
    arguments = (program, layers, objective("squared_error"), batches, quantized)
    exact = interactions(*arguments)
    monkeypatch.setattr(interaction, "_NARROWEST", 8)
    monkeypatch.setattr(interaction, "_STORED", 0)
    drawn = [interactions(*arguments, seed=seed) for seed in range(60)]
    assert all(one.folded == 8 for one in drawn)
    np.testing.assert_array_equal(drawn[0].own, exact.own)
    pairs = np.stack([one.pairs for one in drawn])
    error = pairs.std(axis=0) / len(drawn) ** 0.5
    assert (np.abs(pairs.mean(axis=0) - exact.pairs) <= 4 * error).all()
    # A sample's product is off by 1/sqrt(8) of the norms' product; the mean over 96 samples by no more.
    norms = np.sqrt(4 * exact.own[:, :, None, None] * exact.own)
    assert (pairs.std(axis=0) <= norms / 8**0.5).all()


def test_choices_that_are_missing_or_break_are_marked(tiny: Any, samples: torch.Tensor, rounded: Any) -> None:
    net = tiny("Relu")
    broken = rounded(net.weights["two"], 4)
    broken.weight[0, 0] = np.nan
    quantized = [[rounded(net.weights["one"], 4)], [rounded(net.weights["two"], 3), broken]]
    batches = split_batches({"x": samples}, None, sample_bytes=1, seed=0)
    found = interactions(net.program, net.layers, objective("kl"), batches, quantized)
    usable = np.array([[True, False], [True, False]])
    np.testing.assert_array_equal(np.isfinite(found.increase), usable)
    np.testing.assert_array_equal(np.isfinite(found.own), usable)
    np.testing.assert_array_equal(np.isfinite(found.pairs[0, :, 1, :]), [[True, False], [False, False]])
    assert np.isfinite(found.plan_loss([0, 0]))
    assert np.isnan(found.plan_loss([0, 1]))
    assert np.isnan(found.plan_loss([1, 0]))


def test_pairs_within_three_errors_are_not_trusted(tiny: Any, samples: torch.Tensor, rounded: Any) -> None:
    found, _ = measure(tiny("Tanh"), samples[:8], rounded)
    pairs, stderr = np.full((2, 3, 2, 3), -2.0), np.zeros((2, 3, 2, 3))
    stderr[0, :, 1, :] = stderr[1, :, 0, :] = [[0.0, 0.2, 0.4], [0.6, 0.65, 0.67], [1.0, 9.0, np.nan]]
    told = replace(found, pairs=pairs, pairs_stderr=stderr).trusted_pairs[0, :, 1, :]
    np.testing.assert_allclose(told, [[-2, -1.82, -1.28], [-0.38, -0.09875, 0], [0, 0, -2]], atol=1e-12)
    assert not found.trusted_pairs[np.abs(found.pairs) <= 3 * found.pairs_stderr].any()


def test_file_holds_the_same_numbers(tiny: Any, samples: torch.Tensor, rounded: Any, tmp_path: Path) -> None:
    found, _ = measure(tiny("Relu"), samples, rounded)
    found.save(tmp_path / "interactions.npz")
    read = Interactions.load(tmp_path / "interactions.npz")
    assert (read.layers, read.samples, read.stopped, read.folded) == (
        ("first", "second"),
        96,
        found.stopped,
        0,
    )
    for name in ("increase", "increase_stderr", "own", "own_stderr", "pairs", "pairs_stderr"):
        np.testing.assert_array_equal(getattr(read, name), getattr(found, name))


def test_progress_rises_and_can_cancel(tiny: Any, samples: torch.Tensor, rounded: Any) -> None:
    seen: list[float] = []
    measure(tiny("Relu"), samples, rounded, on_progress=lambda fraction, message: seen.append(fraction))
    assert seen == sorted(seen)
    assert seen[-1] == 1

    def stop(fraction: float, message: str) -> None:
        raise CancelledError(message)

    with pytest.raises(CancelledError, match="first at 3"):
        measure(tiny("Relu"), samples, rounded, on_progress=stop)
