from typing import Any

import numpy as np
import pytest
import torch

from quant_core.errors import SpecError
from quant_core.sensitivity import Objective, Term, fisher, inverse_fisher, split_batches
from quant_core.sensitivity.estimators import fisher as fisher_module
from quant_core.sensitivity.estimators import inverse_fisher as inverse_module

LABELLED = Objective((Term("y", "y", "cross_entropy"),))
LABELS = torch.arange(96) % 3


def batches(x: torch.Tensor, clusters: int = 32) -> Any:
    return split_batches({"x": x}, LABELS[: len(x)], sample_bytes=1, seed=0, clusters=clusters)


@pytest.mark.parametrize("chunk", [1 << 20, 40])
def test_the_inverse_is_that_of_the_dense_matrix(
    tiny: Any, samples: torch.Tensor, label_gradients: Any, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    net, x = tiny("Tanh"), samples[:16]
    damping = 1e-3
    monkeypatch.setattr(inverse_module, "_CHUNK", chunk)
    inverse = inverse_fisher(
        net.program, net.layers, LABELLED, batches(x, clusters=16), seed=0, gradients=16, damping=damping
    )
    vectors = {name: torch.randn(weight.shape) for name, weight in net.weights.items()}
    products, diagonal = inverse.product(vectors), inverse.diagonal()
    for name, rows in label_gradients(net, x, LABELS[:16]).items():
        dense = np.linalg.inv(damping * np.eye(rows.shape[1]) + rows.T @ rows / 16)
        expected = dense @ vectors[name].flatten().double().numpy()
        np.testing.assert_allclose(
            products[name].flatten(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
        )
        np.testing.assert_allclose(diagonal[name].flatten(), dense.diagonal(), rtol=1e-3)
        assert products[name].shape == diagonal[name].shape == net.weights[name].shape


def test_a_layer_that_is_not_finite_leaves_the_others_usable(
    tiny: Any, samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = tiny("Relu")
    drawn = fisher_module.random_gradient
    how: dict[str, Any] = {"seed": 0, "gradients": 8, "damping": 0.1}
    plain = inverse_fisher(net.program, net.layers, LABELLED, batches(samples), **how).diagonal()
    monkeypatch.setattr(
        fisher_module,
        "random_gradient",
        lambda *given: tuple(g * torch.nan if g.shape[0] == 5 else g for g in drawn(*given)),
    )
    broken = inverse_fisher(net.program, net.layers, LABELLED, batches(samples), **how).diagonal()
    assert torch.isnan(broken["one"]).all()
    assert torch.equal(broken["two"], plain["two"])
    traces = fisher(net.program, net.layers, LABELLED, batches(samples), seed=0, max_probes=32).trace
    assert np.isnan(traces[0])
    assert np.isfinite(traces[1])


def test_damping_must_be_positive(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Relu")
    with pytest.raises(SpecError, match="damping"):
        inverse_fisher(net.program, net.layers, LABELLED, batches(samples), seed=0, gradients=2, damping=0.0)
