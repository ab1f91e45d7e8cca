"""Operators that onnxruntime's CPU kernels are slow at, written by others that compute the same.

One thread, 64 channels of 112 x 112 or 28 x 28 (1.31): PRelu takes 15 ns an element in float, channels last between
integer kernels 4 to 15, its pieces on codes 0.25; Mish between integer kernels 11.8 ns, its pieces 1.1.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from quant_core.ingest.passes.mish import SpellOutMish
from quant_core.ingest.passes.prelu import SpellOutPRelu


def spell_out_slow(model: ir.Model) -> ir.Model:
    """Rewrite operators that have slow kernels.

    Args:
        model: A normalised model.

    Returns:
        The same model, changed in place; it computes the same but for rounding.
    """
    changed = [rewrite(model).modified for rewrite in (SpellOutPRelu(), SpellOutMish())]
    if any(changed):
        common.RemoveUnusedNodesPass()(model)  # constants, too
        common.NameFixPass()(model)
    return model
