"""The `portable` target: standard ONNX operators at a chosen opset, for whatever runtime knows them.

No operator of another domain, no model-local function. Forms are those of onnxruntime's CPU kernels, which are all
written in standard operators; a runtime that fuses none of them computes the same, only slower.
"""

from __future__ import annotations

from functools import lru_cache

from quant_core.export.ort_cpu import ort_form
from quant_core.export.plain_storage import PlainOperators
from quant_core.export.target import Target

PORTABLE_OPSETS = tuple(range(18, 26))
"""Opsets to choose from; 18 is the first with BitwiseAnd, 21 has 4-bit and 25 2-bit types."""

DEFAULT_OPSET = 21


@lru_cache
def portable(opset: int) -> Target:
    """Give the target of one opset.

    Args:
        opset: One of `PORTABLE_OPSETS`.

    Returns:
        The target.
    """
    return Target(
        name="portable",
        form=ort_form,
        opset=lambda _widths: opset,
        storage=PlainOperators(opset),
        exact_opset=True,
        runs_here=True,
    )
