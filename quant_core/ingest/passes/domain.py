"""Write the domain of the standard operators in one way."""

from __future__ import annotations

import onnx_ir as ir


class ShortDomain(ir.passes.InPlacePass):
    """Import the standard operators as `""` where a model says `ai.onnx`; both mean the same."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename in place, in local functions too."""
        modified = False
        for imports in (model.opset_imports, *(f.opset_imports for f in model.functions.values())):
            if "ai.onnx" in imports:
                imports[""] = imports.pop("ai.onnx")
                modified = True
        return ir.passes.PassResult(model, modified=modified)
