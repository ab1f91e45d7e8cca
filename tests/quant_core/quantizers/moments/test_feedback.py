import math

import numpy as np
import pytest
import torch

from quant_core.errors import InternalError
from quant_core.quantizers.moments.feedback import Feedback
from quant_core.quantizers.moments.input_moments import InputMoments


def moments(groups, inputs, columns, seed=0):
    x = torch.randn(groups, columns, inputs, generator=torch.Generator().manual_seed(seed))
    x = x * torch.linspace(0.2, 3, inputs)
    return x.transpose(1, 2) @ x / columns


def weights(groups, rows, inputs):
    return 0.3 * torch.randn(groups, rows, inputs, generator=torch.Generator().manual_seed(1))


def damped(second):
    mean = second.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    return second.double() + 0.01 * mean.double() * torch.eye(second.shape[1], dtype=torch.float64)


def published(rows, second, step, low, high, beta=0.0):
    """GPTQ as in its paper: the inverse in float64, its upper factor, one input after another (one group)."""
    order = second.diagonal().argsort(descending=True, stable=True)
    inverse = torch.linalg.inv(damped(second[None])[0][order][:, order])
    U = torch.linalg.cholesky(inverse, upper=True)
    work, original = rows.double()[:, order].clone(), rows.double()[:, order]
    codes = torch.zeros_like(work)
    for k in range(work.shape[1]):
        column = work[:, k] - beta * (work[:, k] - original[:, k])
        codes[:, k] = torch.clamp(torch.round(column / step), low, high)
        column = column - beta * (column - original[:, k])
        error = (column - codes[:, k] * step) / U[k, k]
        work[:, k + 1 :] -= error[:, None] * U[k, k + 1 :]
    return codes[:, order.argsort()]


def swept(feedback, rows, step, low, high, beta=0.0):
    steps = np.full((1, 1, rows.shape[1]), step, dtype=np.float32)

    def nearest(column, k, out):
        out[...] = np.clip(np.round(column / steps), low, high)
        return steps

    found, lost = feedback.sweep(feedback.taken(rows), nearest, beta=beta)
    return feedback.given_back(found)[0].float(), lost[:, 0]


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize(("groups", "inputs"), [(1, 7), (3, 20), (1, 300)])
def test_codes_are_those_of_the_published_algorithm(groups, inputs, beta):
    second, rows = moments(groups, inputs, 3 * inputs), weights(groups, 5, inputs)
    found, _ = swept(Feedback.of(second), rows, 0.1, -4, 3, beta)
    for group in range(groups):
        expected = published(rows[group], second[group], 0.1, -4, 3, beta)
        # A weight halfway between two codes may fall to either side, and takes what follows it along.
        assert (found[group].double() == expected).float().mean() > 0.98


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("groups", [1, 2])
def test_what_is_lost_is_the_damped_output_error(groups, beta):
    second, rows = moments(groups, 150, 60), weights(groups, 4, 150)
    values, lost = swept(Feedback.of(second), rows, 0.2, -2, 1, beta)
    error = (rows - 0.2 * values).double()
    expected = torch.einsum("gri,gij,grj->gr", error, damped(second), error)
    torch.testing.assert_close(lost.double(), expected, rtol=1e-4, atol=1e-7)


def test_beta_0_is_the_same_to_the_last_bit():
    feedback, rows = Feedback.of(moments(1, 40, 90)), weights(1, 6, 40)
    plain, _ = swept(feedback, rows, 0.1, -4, 3)
    zero, _ = swept(feedback, rows, 0.1, -4, 3, beta=1e-12)
    assert torch.equal(plain, zero)


@pytest.mark.parametrize("loud", [1.0, 1e4])
def test_a_single_column_and_outliers_are_damped_enough(loud):
    column = torch.randn(1, 1, 200, generator=torch.Generator().manual_seed(3))
    column[..., 7] *= loud
    second = column.transpose(1, 2) @ column
    feedback = Feedback.of(second)
    root = feedback.triangle.block(0, 200).double() * feedback.pivots.double().sqrt()[:, None, :]
    order = feedback.order[0]
    expected = damped(second)[0][order][:, order]
    scale = expected.diagonal().sqrt()
    # Relative to sqrt(A_ii A_jj) the damping is at least 1e-2 / 200 even where one input holds everything.
    assert float(((root @ root.transpose(1, 2))[0] - expected).abs().div(scale[:, None] * scale).max()) < 1e-5


def test_rows_are_laid_out_and_come_back():
    feedback, rows = Feedback.of(moments(2, 9, 30)), weights(2, 5, 9)
    laid = feedback.taken(rows)
    assert laid.is_contiguous()
    assert laid.shape == (9, 2, 5)
    torch.testing.assert_close(feedback.given_back(laid[:, :, None])[0], rows, rtol=0, atol=0)


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("groups", [1, 3])
def test_grids_are_swept_together_as_each_alone(groups, beta):
    feedback, rows = Feedback.of(moments(groups, 150, 300)), weights(groups, 4, 150)
    steps = np.array([0.1, 0.2, 0.3], dtype=np.float32).reshape(1, 3, 1)

    def nearest(column, k, out):
        out[...] = np.clip(np.round(column / steps), -4, 3)
        return steps

    taken = feedback.taken(rows)
    before = taken.clone()
    found, lost = feedback.sweep(taken, nearest, 3, beta)
    assert torch.equal(taken, before)
    for at, step in enumerate(steps.reshape(-1).tolist()):
        values, error = swept(feedback, rows, step, -4, 3, beta)
        assert (feedback.given_back(found)[at] == values).float().mean() > 0.98
        torch.testing.assert_close(lost[:, at], error, rtol=0.05, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-8, 1e8, 1e11])
def test_codes_do_not_depend_on_the_scale_of_the_inputs(scale):
    rows, columns = weights(1, 5, 40), torch.randn(1, 90, 40, generator=torch.Generator().manual_seed(2))
    columns[:, :, 1:] += columns[:, :, :1]

    def codes(x):
        second = x.transpose(1, 2) @ x / 90
        found = InputMoments(second, x.mean(1), 90, 90).shrunk()
        return swept(Feedback.of(found), rows, 0.1, -4, 3)[0]

    assert not torch.equal(codes(columns), torch.round(rows / 0.1).clamp(-4, 3))
    assert torch.equal(codes(columns), codes(columns * 2.0 ** round(math.log2(scale))))


def test_moments_that_are_none_are_a_fault_of_ours_and_end():
    with pytest.raises(InternalError, match="positive semidefinite"):
        Feedback.of(torch.full((1, 3, 3), torch.nan))
