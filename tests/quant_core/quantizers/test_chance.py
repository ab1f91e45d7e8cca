"""What is more than chance, by the statistic of Student's test."""

import pytest
import torch
from scipy.stats import ttest_1samp

from quant_core.quantizers.chance import exceeds_chance


@pytest.mark.parametrize("seed", range(4))
def test_a_mean_is_held_against_its_standard_error(seed: int) -> None:
    values = torch.randn(20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5
    found = float(ttest_1samp(values.numpy(), 0.0).statistic)
    assert found > 0
    assert exceeds_chance(values, found * (1 - 1e-9))
    assert not exceeds_chance(values, found * (1 + 1e-9))
    assert not exceeds_chance(-values, 1.0)


def test_one_value_tells_nothing() -> None:
    assert not exceeds_chance(torch.ones(1), 1.0)
