"""Constants that operators read as they are, without the look-up of all their rows that made layers of them."""

from __future__ import annotations

from collections.abc import Collection

import onnx
import onnx_ir as ir

from quant_core.ingest.find_layers import reads_whole
from quant_core.ingest.subgraphs import names_inside


def read_constants_directly(proto: onnx.ModelProto, model: ir.Model, looked_up: Collection[str]) -> None:
    """Put an Identity in the place of each Gather that looks up all rows of a constant, and leave out the row numbers.

    Args:
        proto: The normalised model as a message, changed in place.
        model: The same.
        looked_up: Names of the nodes that look up codes, which other nodes look up as well; they stay.
    """
    names = {node.name for node in model.graph if reads_whole(node)}.difference(looked_up)
    graph = proto.graph
    orders = set()
    for node in graph.node:
        if node.name in names:
            orders.add(node.input[1])
            node.op_type = "Identity"
            del node.input[1:]
            del node.attribute[:]
    orders.difference_update(name for node in graph.node for name in node.input)
    orders.difference_update(output.name for output in graph.output)
    orders -= names_inside(graph.node)
    kept = [tensor for tensor in graph.initializer if tensor.name not in orders]
    del graph.initializer[:]
    graph.initializer.extend(kept)
