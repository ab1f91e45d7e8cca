"""Files with 4-bit floats, which onnxruntime's CPU provider has no kernel for, made runnable here.

The weights are dequantized by ONNX's reference evaluator from the file's own bytes; everything else stays as written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator


def has_float4(path: Path) -> bool:
    """Tell whether a file stores E2M1 numbers.

    Args:
        path: The ONNX file.

    Returns:
        True if it does; False for what is no ONNX file.
    """
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (OSError, DecodeError):
        return False
    return any(tensor.data_type == onnx.TensorProto.FLOAT4E2M1 for tensor in graph.initializer)


def fold_float4(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put float weights in the place of those that are read from E2M1 numbers.

    Args:
        model: The model, with its tensors; changed.

    Returns:
        The model.
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    gone: list[onnx.NodeProto] = []
    for node in graph.node:
        codes = stored.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if codes is None or codes.data_type != onnx.TensorProto.FLOAT4E2M1:
            continue
        scales = makers.get(node.input[1])
        nodes = [node] if scales is None else [scales, node]
        gone += nodes
        held = [stored[name] for part in nodes for name in part.input if name in stored]
        result = onnx.ValueInfoProto(name=node.output[0])
        part = onnx.helper.make_graph(nodes, "weight", [], [result], held)
        whole = onnx.helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
        (values,) = ReferenceEvaluator(whole).run(None, {})
        graph.initializer.append(numpy_helper.from_array(np.asarray(values), node.output[0]))
        graph.initializer.remove(codes)
    for node in gone:
        graph.node.remove(node)
    return model
