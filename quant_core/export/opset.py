"""Opsets: reading them, and raising a graph to a later one."""

from __future__ import annotations

import onnx

_LARGE = 4096  # bytes


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
    large = {tensor.name for tensor in graph.initializer if tensor.ByteSize() > _LARGE}
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


def opset_of(proto: onnx.ModelProto) -> int:
    """Read the opset of the standard operators.

    Args:
        proto: The model.

    Returns:
        The opset.
    """
    return int(next(entry.version for entry in proto.opset_import if entry.domain in {"", "ai.onnx"}))
