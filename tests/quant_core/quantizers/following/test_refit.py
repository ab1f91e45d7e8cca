"""Targets for rounded inputs, held against normal equations written out in numpy."""

import numpy as np
import pytest
import torch

from quant_core.quantizers.following.refit import Columns, refit

SAMPLES, EACH = 40, 12
RIDGES = 0.3 * 10.0 ** np.arange(-2, 3)


def made(inputs, outputs, *, true=0.0, noise=0.0, constant=0.0, groups=1, samples=SAMPLES, each=EACH, seed=0):
    """Columns whose lack is `true` times a random product, noise and a constant."""
    rng = np.random.default_rng(seed)
    count = samples * each
    x = rng.standard_normal((groups, count, inputs)) @ rng.standard_normal((groups, inputs, inputs)) + 1
    weight = rng.standard_normal((groups, outputs, inputs))
    lacking = true * x @ weight.transpose(0, 2, 1) + noise * rng.standard_normal((groups, count, outputs))
    columns = Columns(
        torch.from_numpy(x.astype(np.float32)),
        torch.from_numpy((lacking + constant).astype(np.float32)),
        torch.arange(count) // each,
        samples,
    )
    return columns, weight


def ridge_solution(columns, ridge, *, with_bias):
    x, y = columns.inputs.double().numpy(), columns.lacking.double().numpy()
    if with_bias:
        x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    found = []
    for inputs, lacking in zip(x, y, strict=True):
        gram = inputs.T @ inputs
        damped = gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
        found.append(np.linalg.solve(damped, inputs.T @ lacking).T)
    return np.stack(found)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("inputs", "groups"), [(8, 1), (8, 3), (600, 1)])
def test_a_refit_is_ridge_regression(inputs, groups, with_bias):
    columns, _ = made(inputs, 5, true=0.1, noise=0.5, groups=groups, constant=0.3 if with_bias else 0.0)
    found = refit(columns, with_bias=with_bias)
    assert found.weight is not None
    apart = [
        np.abs(ridge_solution(columns, ridge, with_bias=with_bias) - found.weight.numpy()).max()
        for ridge in RIDGES
    ]
    assert min(apart) < 1e-3 * np.abs(found.weight.numpy()).max()
    assert found.error < 1
    expected = columns.lacking.mean(1) if with_bias else torch.zeros(groups, 5)
    np.testing.assert_allclose(found.lacking, expected, atol=1e-5)


def test_what_can_be_known_is_found():
    columns, weight = made(8, 5, true=0.2, constant=0.7)
    found = refit(columns, with_bias=True)
    assert found.weight is not None
    assert found.error < 0.01
    x = columns.inputs.double().numpy()
    true = 0.2 * x @ weight.transpose(0, 2, 1)
    apart = x @ found.weight.numpy().transpose(0, 2, 1) - true
    assert (apart - apart.mean(1)).std() < 0.05 * true.std()


def test_chance_moves_nothing():
    moved = [refit(made(30, 20, noise=1.0, seed=seed)[0], with_bias=True) for seed in range(10)]
    assert sum(found.weight is not None for found in moved) <= 2
    assert sum(bool(found.lacking.any()) for found in moved) <= 4


def test_a_constant_alone_goes_to_the_bias():
    columns, _ = made(30, 20, noise=1.0, constant=0.5)
    found = refit(columns, with_bias=True)
    assert found.weight is None
    assert found.error < 1
    np.testing.assert_allclose(found.lacking, columns.lacking.mean(1), atol=1e-5)
    assert not refit(columns, with_bias=False).lacking.any()


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("inputs", [8, 500])
def test_moments_are_those_of_all_columns(inputs, with_bias):
    columns, _ = made(inputs, 5)
    found = refit(columns, with_bias=with_bias).moments
    x = columns.inputs[0].double().numpy()
    np.testing.assert_allclose(found.second[0], x.T @ x / len(x), rtol=1e-3, atol=1e-3 * (x**2).mean())
    np.testing.assert_allclose(found.mean[0], x.mean(0), atol=1e-3)
    assert (found.columns, found.samples) == (SAMPLES * EACH, SAMPLES)


def test_one_sample_fits_nothing():
    columns, _ = made(8, 5, true=1.0, samples=1)
    found = refit(columns, with_bias=True)
    assert found.weight is None
    assert not found.lacking.any()
