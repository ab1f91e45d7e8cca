"""Samples and probes follow from arithmetic alone: as many as a bounded number of multiply-adds pays for."""

from types import SimpleNamespace
from typing import Any

import pytest

from quant_core.scoring.effort import plan_effort

TRACES, SCORES = 1e12, 3e12


def job(macs: float, *, layers: int = 4, batch: int | None = None) -> Any:
    """Layers that share the multiply-adds, each free to have 4 or 8 bits or to stay float."""
    return SimpleNamespace(
        layers=[SimpleNamespace(macs=macs / layers) for _ in range(layers)],
        candidates={str(i): SimpleNamespace(bits=(4, 8, 32)) for i in range(layers)},
        samples=SimpleNamespace(batch=batch),
        batch_size=10,
    )


@pytest.mark.parametrize(("method", "passes"), [("gauss_newton", 3), ("fisher", 3), ("hawq_v2", 8)])
def test_probes_take_a_bounded_number_of_multiply_adds(method, passes):
    found = plan_effort(job(1e8), 500, method)
    assert found.samples == 500
    assert found.probes == int(TRACES / (1e8 * 10 * passes))
    assert plan_effort(job(1e8), 5, method).probes == int(TRACES / (1e8 * 5 * passes))


@pytest.mark.parametrize("method", ["gauss_newton", "hawq_v2"])
def test_probes_are_never_few_nor_endless(method):
    assert plan_effort(job(1e12), 500, method).probes == 16
    assert plan_effort(job(1.0), 500, method).probes == plan_effort(job(0.0), 500, method).probes == 2000


@pytest.mark.parametrize(
    ("method", "passes"),
    # Half of the network for each of 8 roundings, 48 times as much for the path, 20 and 30 products with 4 layers.
    [("output", 4), ("interaction", 4), ("pqi", 4 * 48), ("hawq", 4 * 20), ("hutch++", 4 * 30)],
)
def test_samples_of_methods_that_read_all_take_a_bounded_number_of_multiply_adds(method, passes):
    macs = SCORES / passes / 40.5
    assert plan_effort(job(macs), 500, method).samples == 40
    assert plan_effort(job(macs), 30, method).samples == 30
    assert plan_effort(job(100 * macs), 500, method).samples == 16
    assert plan_effort(job(macs), 500, method, fast=True).samples == 32


def test_samples_fill_the_batch_that_a_graph_fixes():
    macs = SCORES / 4 / 40.5
    assert plan_effort(job(macs, batch=16), 500, "output").samples == 32
    assert plan_effort(job(macs, batch=64), 500, "output").samples == 64
    assert plan_effort(job(1e8, batch=64), 512, "gauss_newton").probes == int(TRACES / (1e8 * 64 * 3))
