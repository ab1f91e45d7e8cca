from typing import Any

import numpy as np
import pytest
import torch

from quant_core.errors import SpecError
from quant_core.sensitivity import Objective, Term, fisher, gauss_newton_exact, split_batches

KL = Objective((Term("y", "y", "kl"),))
LABELLED = Objective((Term("y", "y", "cross_entropy"),))
SQUARED = Objective((Term("y", "y", "squared_error"),))
LABELS = torch.arange(96) % 3


def batches(x: torch.Tensor, labels: torch.Tensor | None = LABELS, clusters: int = 32) -> Any:
    kept = None if labels is None else labels[: len(x)]
    return split_batches({"x": x}, kept, sample_bytes=1, seed=0, clusters=clusters)


@pytest.mark.parametrize("objective", [LABELLED, KL])
def test_traces_are_those_of_each_samples_gradient(
    tiny: Any, samples: torch.Tensor, label_gradients: Any, objective: Objective
) -> None:
    net = tiny("Tanh")
    rows = label_gradients(net, samples, LABELS)
    exact = np.array([np.square(found).sum(axis=1).mean() for found in rows.values()])
    one_by_one = fisher(
        net.program,
        net.layers,
        objective,
        batches(samples, clusters=96),
        seed=0,
        tolerance=0,
        max_probes=96,
    )
    np.testing.assert_allclose(one_by_one.trace, exact, rtol=1e-5)
    mixed = fisher(
        net.program, net.layers, objective, batches(samples, clusters=8), seed=0, tolerance=0, max_probes=400
    )
    assert (np.abs(mixed.trace - exact) < 3 * mixed.stderr).all()
    assert (mixed.stderr < 0.3 * exact).all()


def test_labels_of_the_model_give_the_gauss_newton_matrix(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Relu")
    exact = gauss_newton_exact(net.program, net.layers, KL, batches(samples)).trace
    found = fisher(
        net.program,
        net.layers,
        KL,
        batches(samples, None),
        seed=0,
        labels="model",
        tolerance=0,
        max_probes=640,
    )
    assert (np.abs(found.trace - exact) < 3 * found.stderr).all()
    assert (found.stderr < 0.3 * exact).all()


@pytest.mark.parametrize(
    ("objective", "labels", "message"),
    [
        (LABELLED, None, "needs labels"),
        (SQUARED, LABELS, "no output holds classes"),
        (KL, LABELS + 5, "label 7 is no class of output 'y', which has 3"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    tiny: Any, samples: torch.Tensor, objective: Objective, labels: Any, message: str
) -> None:
    net = tiny("Relu")
    with pytest.raises(SpecError, match=message):
        fisher(net.program, net.layers, objective, batches(samples, labels), seed=0)
