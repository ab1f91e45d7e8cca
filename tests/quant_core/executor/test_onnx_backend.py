"""The yardstick nobody here wrote: the cases that ship in the onnx package.

In scope: tensors in and out, numbers only, no `ai.onnx.ml` or training domain, at least one float32 input. Counted
apart: random outputs, 8-bit floats and sub-byte integers at the border, preview operators.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from quant_core.executor import run

# Their stored outputs hold rounding noise of 2e-7 where the exact value, which we give, is zero; the tolerance is 1e-7.
NOISY = {"test_dft_inverse", "test_dft_inverse_opset19"}

# Derivatives of a staircase are zero; ours pass straight through the rounding, on purpose.
STRAIGHT_THROUGH = ("cast", "quantizelinear")


def table(title: str, rows: Iterable[tuple[str, bool]]) -> str:
    """Passes per kind."""
    good, all_ = Counter(), Counter()
    for kind, passed in rows:
        all_[kind] += 1
        good[kind] += passed
    lines = [f"{kind:60s} {good[kind]:5d} of {all_[kind]:5d}" for kind in all_]
    return "\n".join([title, *lines, f"{'all':60s} {sum(good.values()):5d} of {sum(all_.values()):5d}"])


def forward_error(case) -> str | None:
    """What is wrong with a case's outputs, or None."""
    try:
        for index, (_, expected) in enumerate(case.samples):
            found = run(case.model, case.feeds(index))
            for value, reference in zip(case.model.graph.output, expected, strict=True):
                ours = found[value.name]
                assert ours.dtype == reference.dtype, f"{ours.dtype} instead of {reference.dtype}"
                assert ours.shape == reference.shape, f"{ours.shape} instead of {reference.shape}"
                np.testing.assert_allclose(
                    ours.astype(np.float64), reference.astype(np.float64), rtol=case.rtol, atol=case.atol
                )
    except Exception as error:
        return repr(error)
    return None


def test_forward_of_every_case(backend_cases, capsys) -> None:
    inside = [case for case in backend_cases if case.outside is None]
    outside = Counter(case.outside for case in backend_cases if case.outside)
    errors = {case.name: forward_error(case) for case in inside}
    main = [case for case in inside if case.border is None]
    with capsys.disabled():
        print()
        print(table("onnx backend cases, forward", [(case.kind, errors[case.name] is None) for case in main]))
        apart = [(case.border, errors[case.name] is None) for case in inside if case.border]
        print(table("counted apart", apart))
        print("out of scope: " + ", ".join(f"{reason} {count}" for reason, count in outside.items()))
    assert {case.name for case in main if errors[case.name]} == NOISY
    assert not [
        case.name for case in inside if case.border and case.border != "random outputs" and errors[case.name]
    ]


@pytest.mark.slow
def test_derivatives_of_every_case(backend_cases, check, capsys) -> None:
    inside = [case for case in backend_cases if case.outside is None and case.kind != "real"]
    errors: dict[str, str | None] = {}
    for case in inside:
        errors[case.name] = forward_error(case) if case.border != "random outputs" else None
        try:
            # A little off the stored point: many cases lie exactly on a kink, where no derivative exists.
            for jitter in (0.0, 0.01, 0.001):
                try:
                    check(case.model, case.feeds(), jitter)
                    break
                except AssertionError:
                    if jitter == 0.001:
                        raise
        except Exception as error:
            errors[case.name] = errors[case.name] or repr(error)
    with capsys.disabled():
        print()
        rows = [(case.border or case.kind, errors[case.name] is None) for case in inside]
        print(table("forward, gradient of every float input at once, Hessian-vector product", rows))
        for name, error in errors.items():
            if error and not any(part in name for part in STRAIGHT_THROUGH):
                print(f"  {name}: {error[:160]}")
    passed = sum(error is None for error in errors.values())
    assert passed >= 1400
