"""Which axis of a tensor counts samples, followed node by node through a graph whose batch is 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from quant_core.ingest.batch.arithmetic import ARITHMETIC
from quant_core.ingest.batch.layout import LAYOUT, reshaped
from quant_core.ingest.batch.operands import Axis, BatchBoundError, Place, Shape
from quant_core.ingest.layer import RECURRENT
from quant_core.ingest.subgraphs import read_inside

_RULES = {**ARITHMETIC, **LAYOUT}


def follow(
    node: ir.Node, places: Mapping[str, Place], shapes: Mapping[str, Shape]
) -> tuple[Place | None, ...]:
    """Find the batch in a node's outputs from where it is in its inputs.

    Args:
        node: A node of a normalised main graph; what lies before it was followed already.
        places: Tensor name -> where its batch is, for the tensors that have one.
        shapes: Tensor name -> shape in a run of one sample.

    Returns:
        One place per output; None for outputs that are the same for every sample.

    Raises:
        BatchBoundError: If the node does not treat samples one by one, or cannot be shown to.
    """
    found = [None if value is None else places.get(value.name or "") for value in node.inputs]
    if any(value.name in places for value in read_inside(node)):
        raise BatchBoundError("it has a subgraph that reads the samples")
    # A shape is the same for every sample but for its batch, which rewritten nodes do not read.
    if all(place is None for place in found) or node.op_type == "Shape":
        return (None,) * len(node.outputs)
    given = [None if place is None else place.axis for place in found]
    outers = {place.outer for place in found if place is not None}
    outer = outers.pop()
    if outers:
        raise BatchBoundError("its operands hold samples in different orders")
    if node.op_type in {"Reshape", "Flatten"}:
        return (reshaped(node, given, outer, shapes),)
    if node.op_type in RECURRENT:
        if outer > 1:
            raise BatchBoundError("its steps are folded into the batch")
        return _recurrent(node, given)
    if node.op_type not in _RULES:
        raise BatchBoundError("it is not known to treat samples one by one")
    return (Place(_RULES[node.op_type](node, given, shapes), outer),) * len(node.outputs)


def _recurrent(node: ir.Node, given: Sequence[Axis]) -> tuple[Place, ...]:
    first = node.attributes.get_int("layout", 0) == 1
    rows, states = (0, 0) if first else (1, 1)
    if given[0] != rows or any(axis not in {None, states} for axis in given[5:7]):
        raise BatchBoundError("its operands count samples along different axes")
    if any(axis is not None for i, axis in enumerate(given) if i not in {0, 5, 6}):
        raise BatchBoundError("its weights or lengths differ from sample to sample")
    return tuple(Place(axis) for axis in ((0, 0, 0) if first else (2, 1, 1))[: len(node.outputs)])
