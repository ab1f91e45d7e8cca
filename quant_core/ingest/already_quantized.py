"""Recognise models that hold quantization operators or low-bit weights already."""

from __future__ import annotations

import re

import onnx
from onnx import TensorProto

from quant_core.errors import AlreadyQuantizedError
from quant_core.ingest.proto_tensors import walk_graphs

_OPERATORS = re.compile(
    r"QuantizeLinear|DequantizeLinear|DynamicQuantize\w+|QLinear\w+|QOrdered\w+|\w+Integer|\w+IntegerToFloat"
    r"|QAttention|QGemm|QMoE|QEmbedLayerNormalization|MatMulNBits|MatMulBnb4|MatMulFpQ4|GatherBlockQuantized"
)
_LOW_BIT: dict[int, str] = {
    TensorProto.UINT4: "UINT4",
    TensorProto.INT4: "INT4",
    TensorProto.FLOAT4E2M1: "FLOAT4E2M1",
    TensorProto.UINT2: "UINT2",
    TensorProto.INT2: "INT2",
}
_SHOWN = 3


def check_not_quantized(model: onnx.ModelProto, where: str) -> None:
    """Refuse a model that has been quantized before.

    Args:
        model: The parsed file.
        where: The model file for messages.

    Raises:
        AlreadyQuantizedError: If it has been; the message names the first nodes or tensors that show it.
    """
    found: list[str] = []
    for graph in walk_graphs(model):
        found += [
            f"{node.op_type} {(node.name or ', '.join(node.output))!r}"
            for node in graph.nodes
            if _OPERATORS.fullmatch(node.op_type)
        ]
        found += [
            f"{_LOW_BIT[tensor.data_type]} tensor {tensor.name!r}"
            for tensor in graph.initializers
            if tensor.data_type in _LOW_BIT
        ]
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise AlreadyQuantizedError(
            f"the model is already quantized: it holds {', '.join(found[:_SHOWN])}{more}.",
            remedy="Give the float model that it was made from.",
            where=where,
        )
