import numpy as np
import pytest
import torch

from quant_core.quantizers.moments import low_rank
from quant_core.quantizers.moments.feedback import Feedback
from quant_core.quantizers.moments.low_rank import low_rank_feedback


def parts(rank, inputs):
    generator = torch.Generator().manual_seed(rank)
    factor = torch.randn(rank, inputs, generator=generator) * torch.linspace(0.1, 2, inputs)
    return factor, torch.rand(inputs, generator=generator)


def dense(factor, diagonal):
    return (factor.T @ factor + diagonal.diag())[None]


@pytest.mark.parametrize(("rank", "inputs"), [(1, 5), (6, 130), (40, 300), (20, 12)])
def test_it_is_the_factor_of_the_whole_matrix(rank, inputs):
    factor, diagonal = parts(rank, inputs)
    found, expected = low_rank_feedback(factor, diagonal), Feedback.of(dense(factor, diagonal))
    assert torch.equal(found.order, expected.order)
    torch.testing.assert_close(found.pivots, expected.pivots, rtol=1e-3, atol=1e-6)
    for start in range(0, inputs, 128):
        stop = min(start + 128, inputs)
        torch.testing.assert_close(
            found.triangle.block(start, stop), expected.triangle.block(start, stop), rtol=1e-3, atol=1e-3
        )
        if start:
            above = found.triangle.factor[:, :start].T @ found.triangle.ahead[:, start:stop]
            whole = expected.triangle.block(0, inputs)[0, :start, start:stop]
            torch.testing.assert_close(above, whole, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_sweeps_round_and_lose_as_with_the_whole_matrix(beta):
    factor, diagonal = parts(30, 400)
    rows = 0.3 * torch.randn(1, 6, 400, generator=torch.Generator().manual_seed(1))
    steps = np.array([0.1, 0.2], dtype=np.float32).reshape(1, 2, 1)

    def nearest(column, k, out):
        out[...] = np.clip(np.round(column / steps), -4, 3)
        return steps

    found = []
    for feedback in (low_rank_feedback(factor, diagonal), Feedback.of(dense(factor, diagonal))):
        values, lost = feedback.sweep(feedback.taken(rows), nearest, 2, beta)
        found.append((feedback.given_back(values).float(), lost))
    # A weight halfway between two codes may fall to either side, and takes what follows it along.
    assert (found[0][0] == found[1][0]).float().mean() > 0.97
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0.02, atol=1e-6)
    error = (rows - 0.1 * found[0][0][0]).double()
    A = dense(factor, diagonal)[0].double()
    A += 0.01 * A.diagonal().mean() * torch.eye(400, dtype=torch.float64)
    exact = torch.einsum("gri,ij,grj->gr", error, A, error)
    torch.testing.assert_close(found[0][1][:, 0].double(), exact, rtol=1e-4, atol=1e-7)


def test_inputs_that_tower_over_the_others_are_factored_as_well():
    factor, diagonal = parts(20, 260)
    factor[:, :3] = 1e6 * factor[:, 200:203]  # as alike as they are large
    found, expected = low_rank_feedback(factor, diagonal), Feedback.of(dense(factor, diagonal).double())
    assert bool(torch.isfinite(found.triangle.ahead).all())
    torch.testing.assert_close(found.pivots, expected.pivots.float(), rtol=0.05, atol=1e-6)


def test_what_float32_breaks_on_is_factored_in_float64(monkeypatch):
    factor, diagonal = parts(20, 260)
    expected, tried = low_rank_feedback(factor, diagonal), []
    whole = low_rank._factored

    def broken(F, D):
        tried.append(F.dtype)
        return None if F.dtype == torch.float32 else whole(F, D)

    monkeypatch.setattr(low_rank, "_factored", broken)
    found = low_rank_feedback(factor, diagonal)
    assert tried == [torch.float32, torch.float64]
    torch.testing.assert_close(found.pivots, expected.pivots)
    torch.testing.assert_close(found.triangle.ahead, expected.triangle.ahead, rtol=1e-3, atol=1e-5)
