"""The `portable` target: standard ONNX operators at a chosen opset, for whatever runtime knows them.

No operator of another domain, no model-local function. Forms are those of onnxruntime's CPU kernels, which are all
written in standard operators; a runtime that fuses none of them computes the same, only slower.
"""

from __future__ import annotations

from functools import lru_cache, partial

import onnx_ir as ir

from quant_core.export.placement.forms import Form
from quant_core.export.storage.plain_operators import PlainOperators
from quant_core.export.targets.ort_cpu import ort_form
from quant_core.export.targets.target import Target
from quant_core.ingest.layer import Layer
from quant_core.spec import WeightFormat, WeightGrid

PORTABLE_OPSETS = tuple(range(18, 26))
"""Opsets to choose from; 18 is the first with BitwiseAnd, 21 has 4-bit and 25 2-bit types."""

DEFAULT_OPSET = 21

_FLOAT8_OPSET = 19
_HOLDS_FLOAT8: frozenset[WeightFormat] = frozenset({"fp8_e4m3", "fp8_e5m2", "nvfp4"})


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
        form=partial(_form, opset=opset),
        opset=lambda _widths: opset,
        storage=PlainOperators(opset),
        exact_opset=True,
        integer_bias=True,
        decodes_trellis=True,
        runs_here=True,
    )


def _form(
    layer: Layer, model: ir.Model, bits: int, activation_bits: int, grid: WeightGrid, *, opset: int
) -> Form | None:
    if grid.format in _HOLDS_FLOAT8 and opset < _FLOAT8_OPSET:
        return None
    return ort_form(layer, model, bits, activation_bits, grid)
