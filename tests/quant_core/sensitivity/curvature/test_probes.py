"""Random cotangents have the loss's curvature as their covariance, and spread as little as it allows."""

import numpy as np
import pytest
import torch

from quant_core.sensitivity import Term
from quant_core.sensitivity.curvature.probes import probe_generator, signed_root


def draws(term: Term, rows: torch.Tensor, count: int) -> torch.Tensor:
    many = rows.expand(count, *rows.shape[1:])
    return signed_root(term, many, probe_generator(0, 0)).double()


@pytest.mark.parametrize("classes", [2, 7, 50])
def test_the_covariance_is_the_curvature_in_the_output(classes: int) -> None:
    logits = 2 * torch.randn(1, 1, classes, generator=torch.Generator().manual_seed(classes))
    c = draws(Term("y", "y", "kl"), logits, 20_000)[:, 0]
    p = logits[0, 0].double().softmax(-1)
    exact = torch.diag(p) - torch.outer(p, p)
    found = c.T @ c / len(c)
    error = (c.square().T @ c.square() / len(c)).sqrt() / len(c) ** 0.5
    assert bool(((found - exact).abs() < 5 * error + 1e-6).all())


def test_every_draw_has_the_whole_trace_where_the_likely_classes_are_turned() -> None:
    logits = 2 * torch.randn(1, 1, 7, generator=torch.Generator().manual_seed(1))
    c = draws(Term("y", "y", "kl"), logits, 200)[:, 0]
    p = logits[0, 0].double().softmax(-1)
    # Columns that are orthogonal give ||S Q r||^2 = Tr(H) whatever the signs.
    assert c.square().sum(-1).numpy() == pytest.approx(float(p.sum() - p.square().sum()), rel=1e-5)


def test_values_that_are_not_finite_stay_so_and_leave_the_other_samples_alone() -> None:
    rows = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(2))
    rows[1, 0, 2] = torch.nan
    c = signed_root(Term("y", "y", "kl"), rows, probe_generator(0, 0))
    assert not torch.isfinite(c[1, 0]).any()
    assert torch.isfinite(c[[0, 2]]).all()
    assert np.isfinite(float(c[1, 1].sum()))


def test_squared_error_is_drawn_with_signs() -> None:
    c = signed_root(Term("y", "y", "squared_error", weight=4.0), torch.randn(2, 1, 5), probe_generator(0, 0))
    assert bool((c.abs() == 2).all())
