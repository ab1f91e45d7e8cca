"""Eigenvalues of small matrices of any size of numbers, against LAPACK."""

import numpy as np
import pytest
import torch

from quant_core.sensitivity.curvature.lanczos import Lanczos


def matrix(scale, size=12):
    square = np.random.default_rng(0).standard_normal((size, size))
    return (square + square.T) * scale


def grown(values, steps, start=None):
    given = torch.from_numpy(values.astype(np.float32))
    space = Lanczos(torch.ones(len(values)) if start is None else start)
    while len(space.diagonal) < steps and space.finite and not space.exhausted:
        space.extend(given @ space.vector)
    return space


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12, 1e24, 1e32])
def test_all_eigenvalues_of_a_full_space(scale):
    values = matrix(scale)
    space = grown(values, 12)
    assert (space.finite, space.exhausted) == (True, True)
    expected = np.linalg.eigvalsh(values)
    np.testing.assert_allclose(space.ritz()[0], expected, atol=1e-4 * np.abs(expected).max())
    assert space.largest == pytest.approx(np.abs(expected).max(), rel=1e-4)
    top, left = space.top()
    assert (top, left) == (pytest.approx(expected[-1], rel=1e-4), 0)
    vector = space.top_vector().double().numpy()
    np.testing.assert_allclose(values @ vector, top * vector, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("scale", [1.0, 1e30])
def test_what_is_left_says_how_well_the_largest_is_known(scale):
    values = matrix(scale, size=40)
    for steps in (4, 8, 16):
        value, left = grown(values, steps).top()
        nearest = np.abs(np.linalg.eigvalsh(values) - value).min()
        assert 0 < nearest <= left * (1 + 1e-3)


def test_a_start_inside_of_few_eigenvectors_reaches_no_others():
    space = grown(np.diag([5.0, 3, 2, 1]), 4, start=torch.tensor([1.0, 0, 1, 0]))
    assert space.exhausted
    np.testing.assert_allclose(space.ritz()[0], [2, 5], rtol=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_products_that_are_not_finite_end_it(wrong):
    values = matrix(1.0)
    values[3, 5] = wrong
    space = grown(values, 12)
    assert not space.finite
    assert not space.exhausted
