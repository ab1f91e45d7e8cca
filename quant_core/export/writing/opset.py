"""Opsets: reading them, raising a graph to a later one, saying it in an earlier one."""

from __future__ import annotations

import math

import onnx

from quant_core.errors import SpecError
from quant_core.ingest.subgraphs import node_protos

_LARGE = 4096  # bytes
# Said differently since, although names and attributes still fit.
_REDEFINED = frozenset({"GroupNormalization", "GridSample"})


def opset_of(proto: onnx.ModelProto) -> int:
    """Read the opset of the standard operators.

    Args:
        proto: The model.

    Returns:
        The opset.
    """
    return int(next(entry.version for entry in proto.opset_import if entry.domain in {"", "ai.onnx"}))


def at_opset(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Raise the opset in place, without sending large tensors, which no conversion looks at, through the converter.

    Args:
        proto: The model; changed.
        opset: The lowest opset that will do.

    Returns:
        The same message, at `opset` or above.
    """
    if opset_of(proto) >= opset:
        return proto
    graph = proto.graph
    large = {tensor.name for tensor in graph.initializer if _is_large(tensor)}
    skeleton = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    skeleton.graph.name = graph.name
    skeleton.graph.node.extend(graph.node)
    skeleton.graph.output.extend(graph.output)
    skeleton.graph.input.extend(graph.input)
    for tensor in graph.initializer:
        if tensor.name in large:
            stand_in = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            skeleton.graph.input.append(stand_in)
        else:
            skeleton.graph.initializer.append(tensor)
    raised = onnx.version_converter.convert_version(skeleton, opset)
    del graph.node[:], proto.opset_import[:]
    graph.node.extend(raised.graph.node)
    proto.opset_import.extend(raised.opset_import)
    known = {tensor.name for tensor in graph.initializer}
    graph.initializer.extend(tensor for tensor in raised.graph.initializer if tensor.name not in known)
    return proto


def _is_large(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor has much data, or data that is not there."""
    return tensor.ByteSize() > _LARGE or (math.prod(tensor.dims) > _LARGE and not tensor.external_data)


def lower_opset(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Say a graph in an earlier opset in place, where its operators meant the same there.

    An operator may stay as it is if its schema of then has the same inputs and outputs, and every attribute that a node
    sets; element types are left to the checker.

    Args:
        proto: The model; changed.
        opset: The opset wanted.

    Returns:
        The same message, at `opset` or below.

    Raises:
        SpecError: If an operator did not exist or meant something else; names its node.
    """
    now = opset_of(proto)
    if now <= opset:
        return proto
    for node in node_protos(proto.graph):
        if node.domain in {"", "ai.onnx"} and not _means_the_same(node, now, opset):
            raise SpecError(
                f"the model cannot be written at opset {opset}: {node.op_type} of node {node.name!r} came later.",
                remedy=f"Choose opset {now}, or a version of the model of opset {opset}.",
                where="opset",
            )
    for entry in proto.opset_import:
        if entry.domain in {"", "ai.onnx"}:
            entry.version = opset
    return proto


def _means_the_same(node: onnx.NodeProto, now: int, then: int) -> bool:
    new = onnx.defs.get_schema(node.op_type, now, "")
    if new.since_version <= then:
        return True
    if node.op_type in _REDEFINED:
        return False
    try:
        old = onnx.defs.get_schema(node.op_type, then, "")
    except onnx.defs.SchemaError:
        return False
    if len(node.input) > old.max_input or len(node.output) > old.max_output:
        return False
    return all(
        attribute.name in old.attributes or _repeats_default(attribute, new) for attribute in node.attribute
    )


def _repeats_default(attribute: onnx.AttributeProto, schema: onnx.defs.OpSchema) -> bool:
    default = schema.attributes[attribute.name].default_value
    if not default.name:
        return False
    return bool(onnx.helper.get_attribute_value(attribute) == onnx.helper.get_attribute_value(default))
