"""Give Resize nodes that come from opset 10 or older the sampling they had there."""

from __future__ import annotations

import onnx_ir as ir

from quant_core.errors import ModelError

LAST_LEGACY_OPSET = 10
LAST_UPSAMPLE_OPSET = 9


def restore_sampling(model: ir.Model, version: int) -> None:
    """Set the attributes that onnx's version converter leaves out.

    Upsample and Resize up to opset 10 sample at `x / scale`; opset 11 calls that `asymmetric` and no longer has it
    as default. For nearest neighbours onnxruntime then rounds down when enlarging and up when shrinking.

    Args:
        model: A model just converted from opset 10 or older, in which every Resize is such a node; changed in place.
        version: The opset it was converted from.

    Raises:
        ModelError: If one Resize node enlarges one axis and shrinks another, or its scales are not known.
    """
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type != "Resize" or node.domain:
            continue
        node.attributes["coordinate_transformation_mode"] = ir.AttrString(
            "coordinate_transformation_mode", "asymmetric"
        )
        if node.attributes.get_string("mode", "nearest") == "nearest":
            node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", _rounding(node, version))


def _rounding(node: ir.Node, version: int) -> str:
    scales = (
        ir.convenience.get_const_tensor(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    )
    if scales is None:
        if version <= LAST_UPSAMPLE_OPSET:
            # Upsample, by its name and specification, only enlarges.
            return "floor"
        raise _refusal(node, "has scales that are computed")
    values = scales.numpy()
    if (values < 1).any() and (values > 1).any():
        raise _refusal(node, "enlarges one axis and shrinks another")
    return "ceil" if (values < 1).any() else "floor"


def _refusal(node: ir.Node, problem: str) -> ModelError:
    return ModelError(
        f"Resize by nearest neighbours {problem}, which newer opsets cannot express.",
        remedy="Export the model with opset_version=11 or higher.",
        where=node.name or node.outputs[0].name,
    )
