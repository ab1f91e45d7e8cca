"""What stays float between rounded tensors, and must be told to.

onnxruntime quantizes a float Conv or Gemm between DequantizeLinear and QuantizeLinear per tensor when it loads a file
(its optimizer `WeightBiasQuantization`), whatever provider runs it. Before that it moves rounding from behind a MaxPool
or a Reshape in front of it, and DequantizeLinear from the front behind it, so that codes are moved. An AveragePool
between the two it turns into one of codes: two 1 x 1 convolutions around it then take 1.1 to 2.4 times as long, in
batches of 8 0.85 to 2.0 times (1.31, 2 x 2 to 7 x 7, one thread).
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import onnx_ir as ir

from quant_core.export.placement.tensor_flow import feeds_quantizer, is_rectifier, value_name
from quant_core.ingest.layer import Layer

_ENDANGERED = frozenset({"Conv", "ConvTranspose", "Gemm"})
MOVED_PAST = frozenset({"Flatten", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators from behind which onnxruntime moves rounding, and from in front of which dequantization."""


def guarded_layers(
    graph: ir.Graph,
    layers: Collection[Layer],
    integer_nodes: Collection[str],
    is_rounded: Callable[[ir.Value | None], bool],
) -> frozenset[str]:
    """Find the float layers that onnxruntime would quantize.

    Args:
        graph: The graph.
        layers: Its layers.
        integer_nodes: Names of nodes that run on integers.
        is_rounded: Whether a tensor is rounded.

    Returns:
        Names of the layers that need a guard behind them.
    """
    owner = {use.node: layer.name for layer in layers for use in layer.uses}

    def is_from_rounding(value: ir.Value | None) -> bool:
        if is_rounded(value):
            return True
        node = None if value is None else value.producer()
        return node is not None and _is_moved_past(node) and is_from_rounding(node.inputs[0])

    def reaches_rounding(value: ir.Value) -> bool:
        if is_rounded(value) or feeds_quantizer(value):
            return True
        return any(_lets_past(node) and reaches_rounding(node.outputs[0]) for node, _ in value.uses())

    return frozenset(
        owner[str(node.name)]
        for node in graph
        if node.op_type in _ENDANGERED
        and node.name in owner
        and node.name not in integer_nodes
        and is_from_rounding(node.inputs[0])
        and reaches_rounding(node.outputs[0])
    )


def guarded_pools(graph: ir.Graph, points: Collection[str], channels_last: Collection[str]) -> frozenset[str]:
    """Find the pools that run in float and that onnxruntime would run on codes, which is slower there.

    Args:
        graph: The graph.
        points: Names of the tensors that are rounded.
        channels_last: Names of those whose maxima it takes fast.

    Returns:
        Names of the nodes that need a guard behind them, MaxPools also in front of them where that is rounded.
    """

    def reaches_rounding(value: ir.Value) -> bool:
        return value.name in points or any(
            _lets_past(node) and reaches_rounding(node.outputs[0]) for node, _ in value.uses()
        )

    def is_endangered(node: ir.Node) -> bool:
        rounded = bool(node.inputs) and node.inputs[0] is not None and node.inputs[0].name in points
        if node.domain:
            return False
        if node.op_type == "AveragePool":
            return rounded and reaches_rounding(node.outputs[0])
        if node.op_type != "MaxPool" or value_name(node.inputs[0]) in channels_last:
            return False
        return rounded or reaches_rounding(node.outputs[0])

    return frozenset(str(node.name) for node in graph if is_endangered(node))


def _lets_past(node: ir.Node) -> bool:
    return is_rectifier(node) or _is_moved_past(node)


def _is_moved_past(node: ir.Node) -> bool:
    return node.op_type in MOVED_PAST and not node.domain
