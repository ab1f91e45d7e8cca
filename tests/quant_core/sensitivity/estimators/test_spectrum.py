from typing import Any

import numpy as np
import pytest
import torch

from quant_core.sensitivity import Objective, Term, split_batches
from quant_core.sensitivity.estimators.spectrum import spectrum

LABELLED = Objective((Term("y", "y", "cross_entropy"),))
LABELS = torch.arange(96) % 3


def batches(x: torch.Tensor, largest: int = 48) -> Any:
    return split_batches({"x": x}, LABELS, sample_bytes=1, seed=0, clusters=1, largest=largest)


def dense(net: Any, x: torch.Tensor, names: tuple[str, ...]) -> np.ndarray:
    """Eigenvalues of the Hessian in these weights together."""
    shapes = [net.weights[name].shape for name in names]

    def value(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([shape.numel() for shape in shapes])
        weights = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return torch.nn.functional.cross_entropy(net.forward(x, {**net.weights, **weights}), LABELS)

    flat = torch.cat([net.weights[name].flatten() for name in names]).double()
    return np.linalg.eigvalsh(torch.autograd.functional.hessian(value, flat).numpy())


@pytest.mark.parametrize(("layer", "names"), [(None, ("one", "two")), (1, ("two",))])
def test_moments_and_extremes_are_those_of_the_dense_hessian(
    tiny: Any, samples: torch.Tensor, layer: int | None, names: tuple[str, ...]
) -> None:
    net = tiny("Tanh")
    exact = dense(net, samples, names)
    found = spectrum(
        net.program, net.layers, LABELLED, batches(samples), seed=0, steps=20, probes=32, layer=layer
    )
    assert found.parameters == len(exact)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-6)
    assert found.moment(0) == pytest.approx((len(exact), 0), abs=1e-4)
    for order in (1, 2):
        value, stderr = found.moment(order)
        assert abs(value - (exact**order).sum()) < 3 * stderr
        assert stderr < 0.12 * np.abs(exact**order).sum()
    assert found.extremes == pytest.approx((exact[0], exact[-1]), abs=2e-3 * exact[-1])


def test_the_density_has_mass_one_and_follows_the_eigenvalues(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Tanh")
    exact = dense(net, samples, ("one", "two"))
    found = spectrum(net.program, net.layers, LABELLED, batches(samples, 96), seed=0, steps=24, probes=60)
    grid = np.linspace(exact[0] - 1, exact[-1] + 1, 2001)
    width = 0.02 * exact[-1]
    smooth = found.density(grid, width)
    assert np.trapezoid(smooth, grid) == pytest.approx(1, abs=1e-6)
    curves = np.exp(-0.5 * ((grid[:, None] - exact) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    missed = np.trapezoid(np.abs(smooth - curves.mean(axis=1)), grid)
    assert missed < 0.12  # of a possible 2; half of it is the noise of 60 probes
    uniform = np.trapezoid(np.abs(1 / (grid[-1] - grid[0]) - curves.mean(axis=1)), grid)
    assert missed < 0.1 * uniform


def test_a_probe_is_exact_for_as_many_moments_as_steps_allow(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Tanh")
    few, many = (
        spectrum(net.program, net.layers, LABELLED, batches(samples), seed=3, steps=steps, probes=2)
        for steps in (3, 20)
    )
    for order in range(6):
        assert few.moment(order)[0] == pytest.approx(many.moment(order)[0], rel=1e-3)
    assert few.moment(8)[0] < 0.999 * many.moment(8)[0]


def test_little_memory_leaves_the_density_as_it_is(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Tanh")
    ample, scarce = (
        spectrum(
            net.program, net.layers, LABELLED, batches(samples, 96), seed=1, steps=48, probes=8, memory=memory
        )
        for memory in (1 << 30, 1)
    )
    low, high = ample.extremes
    grid = np.linspace(low, high, 500)
    apart = np.abs(ample.density(grid, 0.05 * high) - scarce.density(grid, 0.05 * high))
    assert np.trapezoid(apart, grid) < 0.02
    assert ample.products < 8 * 48 == scarce.products  # copies appear instead of an end of the space


def test_a_space_that_ends_early_ends_the_probe(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Relu")
    found = spectrum(net.program, net.layers, LABELLED, batches(samples), seed=0, steps=40, probes=2, layer=1)
    assert found.products <= 2 * 18
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-6)
    assert (found.weights[:, 18:] == 0).all()


def test_what_is_not_finite_is_told_by_nan(
    tiny: Any, samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quant_core.sensitivity.curvature import hessian

    monkeypatch.setattr(
        hessian, "bend", lambda g, w, v, retain=False: tuple(t.detach() * torch.nan for t in w)
    )
    net = tiny("Relu")
    found = spectrum(net.program, net.layers, LABELLED, batches(samples), seed=0, steps=4, probes=2)
    assert np.isnan(found.values).all()
    assert np.isnan(found.moment(1)[0])
