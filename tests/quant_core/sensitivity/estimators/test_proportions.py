"""What samples cost all layers alike is told by a few layers; where it differs between layers it is not."""

import pytest
import torch

from quant_core.sensitivity.estimators.proportions import proportions

SHARES = torch.tensor([0.2, 3.0, 0.5, 1.1, 0.1, 2.0, 0.7, 0.4], dtype=torch.float64)


def layers_of(noise: float, count: int = 6) -> list[torch.Tensor]:
    random = torch.randn(count, len(SHARES), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return list(torch.logspace(-5, -1, count).double()[:, None] * SHARES * (noise * random).exp())


def test_the_other_samples_follow_where_all_layers_feel_them_alike() -> None:
    few = proportions(layers_of(0.0), 3)
    assert few is not None
    whole = 7e-3 * SHARES
    assert few.extended(whole[:3]).tolist() == pytest.approx(whole.tolist())


def test_what_is_foretold_is_as_far_off_as_allowed_at_most() -> None:
    *others, asked = layers_of(0.15, 41)
    few = proportions(others, 4)
    assert few is not None
    assert float(few.extended(asked[:4]).mean() / asked.mean()) == pytest.approx(1, abs=0.3)
    assert few.extended(asked[:4])[:4].tolist() == asked[:4].tolist()


@pytest.mark.parametrize(
    "changes",
    [
        layers_of(1.0, 40),
        layers_of(0.0, 2),
        [],
        [*layers_of(0.0), torch.zeros(8, dtype=torch.float64)],
        [*layers_of(0.0), -SHARES],
        [*layers_of(0.0), SHARES * torch.nan],
    ],
    ids=["by chance", "two layers", "the last layers stay float", "no change", "a fall", "nan"],
)
def test_it_is_not_foretold_where_that_is_not_known(changes: list[torch.Tensor]) -> None:
    assert proportions(changes, 4) is None
