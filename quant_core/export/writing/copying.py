"""Nodes of the user's graph, copied as short as they can be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import onnx

from quant_core.ingest.passes.stated_defaults import STATED


def copy_node(
    node: onnx.NodeProto, inputs: Sequence[str], outputs: Sequence[str], opset: int
) -> onnx.NodeProto:
    """Copy a node with other inputs and outputs, without attributes that only repeat their defaults.

    What onnx infers no shapes without stays: a checker holds these against what outputs are declared with.

    Args:
        node: The node.
        inputs: Its new inputs.
        outputs: Its new outputs.
        opset: Opset of the standard operators, which the defaults are read from.

    Returns:
        The copy.
    """
    copy = onnx.NodeProto(
        op_type=node.op_type, domain=node.domain, name=node.name, input=inputs, output=outputs
    )
    defaults = _defaults(node.op_type, node.domain, opset)
    copy.attribute.extend(attribute for attribute in node.attribute if not _is_default(attribute, defaults))
    return copy


@lru_cache
def _defaults(op: str, domain: str, opset: int) -> dict[str, Any]:
    if domain not in {"", "ai.onnx"}:
        return {}
    schema = onnx.defs.get_schema(op, opset, "")
    defaults = {
        name: onnx.helper.get_attribute_value(attribute.default_value)
        for name, attribute in schema.attributes.items()
        if attribute.default_value.name and not (op in STATED and name == STATED[op].name)
    }
    if op in {"Conv", "ConvTranspose", "MaxPool", "AveragePool"}:  # stated in prose, not in the schema
        defaults |= {"dilations": 1, "strides": 1, "pads": 0}
    return defaults


def _is_default(attribute: onnx.AttributeProto, defaults: Mapping[str, Any]) -> bool:
    if attribute.name not in defaults or attribute.ref_attr_name:
        return False
    value, default = onnx.helper.get_attribute_value(attribute), defaults[attribute.name]
    return all(v == default for v in value) if isinstance(value, list) else bool(value == default)
