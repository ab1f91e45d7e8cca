"""Curvature as a user reads it in the table, against dense matrices of the network that he gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from quant_core.analysis import analyze
from quant_core.artifacts import SPECTRUM_JSON
from quant_core.spec import AnalyzeSpec, SensitivityTable
from quant_core.spec.spectrum import SpectrumTable
from tests.networks import network

SAMPLES = 20
SHAPES = ((5, 12), (12, 9))


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """Two dense layers with class scores at the end, and the Hessian of each over all samples."""
    folder = tmp_path_factory.mktemp("net")
    rng = np.random.default_rng(0)
    weights = [(2 * rng.normal(size=shape)).astype(np.float32) for shape in SHAPES]
    model = network(
        """<ir_version: 8, opset_import: ["": 18]>
        net (float[N,5] x) => (float[N,9] logits) { h = MatMul(x, v) t = Tanh(h) logits = MatMul(t, w) }""",
        dict(zip("vw", weights, strict=True)),
    )
    onnx.save(model, folder / "net.onnx")
    x = rng.normal(size=(SAMPLES, 5)).astype(np.float32)
    np.savez(folder / "net.npz", x=x)

    inputs = torch.from_numpy(x).double()
    v, w = (torch.from_numpy(weight).double() for weight in weights)
    target = (torch.tanh(inputs @ v) @ w).softmax(dim=1)

    def loss(v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        logits = torch.tanh(inputs @ v.view(SHAPES[0])) @ w.view(SHAPES[1])
        return (target * (target.log() - logits.log_softmax(dim=1))).sum(dim=1).mean()

    blocks = torch.autograd.functional.hessian(loss, (v.reshape(-1), w.reshape(-1)))
    return folder, [blocks[0][0], blocks[1][1]]


def analysed(folder: Path, method: str, **more: bool) -> SensitivityTable:
    asked = {"sensitivity": method, "held_back": 0, "bits": [4], "seed": 3, "equalize": "none"} | more
    return analyze(
        folder / "net.onnx", folder / "net.npz", AnalyzeSpec.model_validate(asked), folder / method
    )


def test_with_nothing_held_back_traces_are_those_of_all_samples(net):
    folder, hessians = net
    table = analysed(folder, "gauss_newton")
    assert table.samples == SAMPLES
    assert table.stopped == "exact over outputs"
    exact = [float(hessian.trace()) for hessian in hessians]
    assert [layer.trace for layer in table.layers] == pytest.approx(exact, rel=1e-4)


def test_largest_eigenvalues_equal_dense_ones(net):
    folder, hessians = net
    table = analysed(folder, "hawq")
    exact = [float(torch.linalg.eigvalsh(hessian)[-1]) for hessian in hessians]
    assert [layer.eigenvalue for layer in table.layers] == pytest.approx(exact, rel=1e-4)


def test_densities_of_a_small_net_tell_traces_with_their_errors(net):
    folder, hessians = net
    analysed(folder, "orm", spectrum=True)
    table = SpectrumTable.model_validate_json((folder / "orm" / SPECTRUM_JSON).read_text())
    for entry, hessian in zip(table.spectra[1:], hessians, strict=True):
        assert entry.trace is not None
        assert entry.trace_stderr is not None
        assert abs(entry.trace - float(hessian.trace())) < 3 * entry.trace_stderr
        assert entry.trace_stderr < 0.5 * entry.trace
        assert entry.frobenius == pytest.approx(float(hessian.norm()), rel=0.3)
