"""Fold until nothing changes: a folded constant settles a shape, which settles a condition, and so on."""

from __future__ import annotations

import onnx_ir as ir

from quant_core.ingest.passes.branches import InlineConstantIf
from quant_core.ingest.passes.constant_regions import FoldConstantRegions
from quant_core.ingest.passes.constants import FoldConstants
from quant_core.ingest.passes.shapes import FoldShapes

_ROUNDS = 12


class Fold(ir.passes.InPlacePass):
    """Apply `FoldConstants`, `FoldShapes`, `FoldConstantRegions` and `InlineConstantIf` in turn.

    onnxscript's folding is not used: it computes a result before it knows how large it is, believes shapes that the
    exporter noted for its example, and fails on some sequences.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in place, once constants are initializers."""
        modified = False
        for _ in range(_ROUNDS):
            changes = [
                rewrite(model).modified
                for rewrite in (FoldConstants(), FoldShapes(), FoldConstantRegions(), InlineConstantIf())
            ]
            if not any(changes):
                break
            modified = True
        return ir.passes.PassResult(model, modified=modified)
