"""Bodies of the operators that the ONNX standard defines by other operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir

from quant_core.executor.dtypes import Kind
from quant_core.executor.kinds import schema_of


def standard_function(
    domain: str,
    op: str,
    version: int,
    attributes: Mapping[str, ir.Attr],
    node: ir.Node,
    kinds: Sequence[Kind | None],
) -> ir.Function | None:
    """The function body of an operator as the standard gives it.

    Args:
        domain: Operator domain.
        op: Operator type.
        version: Opset version.
        attributes: Resolved attributes of the node.
        node: The node; bodies may depend on which inputs and outputs it has.
        kinds: Element types of the inputs; unknown ones are taken to be FLOAT.

    Returns:
        The body with default attribute values filled in, or None if the standard has none.
    """
    schema: Any = schema_of(domain, op, version)
    if schema is None:
        return None
    proto = onnx.FunctionProto()
    if schema.has_context_dependent_function:
        body = _dependent_body(schema, version, attributes, node, kinds)
        if body is None:
            return None
        proto.ParseFromString(body)
    elif schema.has_function:
        versions = [held for held in schema.function_opset_versions if held <= version]
        found = schema.get_function_with_opset_version(max(versions)) if versions else schema.function_body
        proto.ParseFromString(found if isinstance(found, bytes) else found.SerializeToString())
    else:
        return None
    function = ir.serde.deserialize_function(proto)
    for name, formal in schema.attributes.items():
        default = formal.default_value
        if default.type and (name not in function.attributes or function.attributes[name].value is None):
            function.attributes[name] = ir.serde.deserialize_attribute(default)
    return function


def _dependent_body(
    schema: Any,
    version: int,
    attributes: Mapping[str, ir.Attr],
    node: ir.Node,
    kinds: Sequence[Kind | None],
) -> bytes | None:
    versions = [held for held in schema.context_dependent_function_opset_versions if held <= version]
    if not versions:
        return None
    proto = onnx.NodeProto(op_type=schema.name, domain=schema.domain)
    proto.input.extend((value.name if value is not None else "") or "" for value in node.inputs)
    proto.output.extend(value.name or "" for value in node.outputs)
    proto.attribute.extend(ir.serde.serialize_attribute(attribute) for attribute in attributes.values())
    types = []
    for value, kind in zip(node.inputs, kinds, strict=True):
        if value is None or not value.name:
            types.append(onnx.TypeProto().SerializeToString())
            continue
        made = onnx.helper.make_tensor_type_proto(int(kind or Kind.FLOAT), None)
        if value.shape is not None:
            ir.serde.serialize_shape_into(made, value.shape)
        types.append(made.SerializeToString())
    body: bytes = schema.get_context_dependent_function_with_opset_version(
        max(versions), proto.SerializeToString(), types
    )
    return body or None
