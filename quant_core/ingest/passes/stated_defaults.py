"""State attributes that onnx infers shapes wrongly without, although the specification gives them a default."""

from __future__ import annotations

import onnx_ir as ir

STATED = {
    "MeanVarianceNormalization": ir.AttrInt64s("axes", [0, 2, 3]),  # no shape at all
    "STFT": ir.AttrInt64("onesided", 1),  # as many frequencies as with 0
}
"""Operator -> the attribute at its default."""


class StateDefaults(ir.passes.InPlacePass):
    """Write `onesided` of STFT and `axes` of MeanVarianceNormalization where they are left out."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """State them in place, in subgraphs too."""
        changed = False
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            default = STATED.get(node.op_type) if node.domain == "" else None
            if default is not None and default.name not in node.attributes:
                node.attributes[default.name] = default
                changed = True
        return ir.passes.PassResult(model, changed)
