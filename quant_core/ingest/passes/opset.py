"""Raise a model to an opset that holds all operators the exporter needs."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript.version_converter import ConvertVersionPass

from quant_core.errors import ModelError

TARGET_OPSET = 21
"""First opset with 4-bit integers."""
TARGET_IR_VERSION = 10
"""The file format version that goes with it."""


class RaiseOpset(ir.passes.InPlacePass):
    """Convert models below `TARGET_OPSET` up to it, and leave newer ones alone."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Convert in place.

        Args:
            model: A model without local functions, whose initializers are no graph inputs.

        Returns:
            The same model.

        Raises:
            ModelError: If an operator cannot be expressed in the newer opset.
        """
        model.ir_version = max(model.ir_version or 0, TARGET_IR_VERSION)
        version = model.graph.opset_imports.get("")
        if version is None:
            model.graph.opset_imports[""] = TARGET_OPSET
            return ir.passes.PassResult(model, modified=True)
        if version >= TARGET_OPSET:
            return ir.passes.PassResult(model, modified=False)
        ConvertVersionPass(target_version=TARGET_OPSET, fallback=True)(model)
        if model.graph.opset_imports.get("") != TARGET_OPSET:
            raise ModelError(
                f"the model uses opset {version} and cannot be raised to {TARGET_OPSET}.",
                remedy=f"Export it again with opset_version={TARGET_OPSET}.",
            )
        return ir.passes.PassResult(model, modified=True)
