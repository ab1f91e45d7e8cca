"""Find operators between transpositions that may as well run on what was not transposed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_tensor

_ALONE = frozenset(
    "Abs Cast Ceil Celu Elu Erf Exp Floor Gelu HardSigmoid HardSwish LeakyRelu Log Mish Neg Reciprocal Relu Round Selu "
    "Sigmoid Sign Softplus Softsign Sqrt Swish Tanh ThresholdedRelu".split()
)
_TOGETHER = frozenset("Add Clip Div Max Mean Min Mul PRelu Pow Sub Sum".split())
ALONG = frozenset({"Concat", "LogSoftmax", "Softmax"})
"""Operators along one axis, which an attribute names."""
MEANS = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"})

Order = tuple[int, ...]


@dataclass(eq=False)
class Region:
    """Nodes behind transpositions of one order, each of which may as well run in front of them.

    Attributes:
        order: `perm` of the transpositions.
        nodes: The nodes, as keys.
    """

    order: Order
    nodes: dict[ir.Node, None] = field(default_factory=dict)


def order_of(node: ir.Node | None) -> Order | None:
    """Read what a Transpose does.

    Args:
        node: Perhaps a Transpose.

    Returns:
        Its `perm`; None for other nodes, and where it is left out.
    """
    if node is None or node.op_type != "Transpose" or node.domain:
        return None
    return tuple(node.attributes.get_ints("perm", ())) or None


def inverse(order: Sequence[int]) -> Order:
    """Give the order that takes another back.

    Args:
        order: A permutation.

    Returns:
        The inverse permutation.
    """
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def find_regions(graph: ir.Graph) -> list[Region]:
    """Find the regions that need fewer transpositions if their nodes run in front of them.

    Args:
        graph: Nodes in order, constants as initializers.

    Returns:
        Regions that share no node.
    """
    region_of: dict[ir.Node, Region] = {}
    for node in graph:
        orders = {_order_given(value, region_of) for value in _computed(node)}
        order = orders.pop() if len(orders) == 1 else None
        if order is None or not may_turn(node, order):
            continue
        region, *others = _regions_beside(node, order, region_of) or [Region(order)]
        for other in others:
            region.nodes.update(other.nodes)
            region_of.update(dict.fromkeys(other.nodes, region))
        region.nodes[node] = None
        region_of[node] = region
    regions = list(dict.fromkeys(region_of.values()))
    for region in regions:
        _leave_what_gains_nothing(region)
    return [region for region in regions if region.nodes and _spared(region) > 0]


def stands(region: Region) -> bool:
    """Tell whether a region is still behind its transpositions.

    Args:
        region: One of several that were found together; others of them may have been turned since.

    Returns:
        Whether none of these took a transposition behind it that was in front of this one as well.
    """
    fronts = (value.producer() for node in region.nodes for value in _computed(node))
    return all(front in region.nodes or order_of(front) == region.order for front in fronts)


def given_back(value: ir.Value, order: Order) -> list[ir.Node]:
    """List the transpositions behind a tensor that undo those in front.

    Args:
        value: What a node of the region writes.
        order: That of the region.

    Returns:
        Nodes of the same graph; of those that give outputs of it the first alone, and that in front of the others.
    """
    producer = value.producer()
    graph = None if producer is None else producer.graph
    found = [node for node, _ in value.uses() if order_of(node) == inverse(order) and node.graph is graph]
    given_out = [node for node in found if node.outputs[0].is_graph_output()]
    return given_out[:1] + [node for node in found if node not in given_out]


def needs_order(value: ir.Value, region: Region) -> bool:
    """Tell whether a tensor of a region is read as it was ordered.

    Args:
        value: What a node of the region writes.
        region: The region.

    Returns:
        Whether a transposition must come behind it.
    """
    producer = value.producer()
    if producer is not None and ends_order(producer):
        return False
    back = given_back(value, region.order)
    others = [reader for reader, _ in value.uses() if reader not in region.nodes and reader not in back]
    return value.is_graph_output() or bool(others)


def ends_order(node: ir.Node) -> bool:
    """Tell whether what a node of a region writes is the same in both orders.

    Args:
        node: A node that `may_turn`.

    Returns:
        Whether it is a mean over what was out of order.
    """
    return node.op_type in MEANS and not node.attributes.get_int("keepdims", 1)


def may_turn(node: ir.Node, order: Order) -> bool:
    """Tell whether a node does the same on what is not transposed, its constants and axes in the other order.

    Args:
        node: Any node.
        order: `perm` of what it reads.

    Returns:
        Whether it works value by value or along one axis, pads, resizes, or takes means over constant axes.
    """
    if node.domain or len(node.outputs) != 1:
        return False
    constants = [constant_tensor(value) for value in node.inputs[1:]]
    if node.op_type in _ALONE | ALONG:
        return True
    if node.op_type in _TOGETHER:
        held = [constant_tensor(value) for value in node.inputs if value is not None]
        return all(tensor is None or len(tensor.shape) <= len(order) for tensor in held)
    known = all(tensor is not None for tensor, value in zip(constants, node.inputs[1:], strict=True) if value)
    if node.op_type == "Pad":
        return known
    if node.op_type == "Resize":
        # Without a region to read from, or axes to name, every axis has its own scale or size.
        return known and node.inputs[1] is None and "axes" not in node.attributes
    if node.op_type in MEANS and known and len(constants) == 1:
        return bool(node.attributes.get_int("keepdims", 1)) or in_order_without(order, axes_read(node, order))
    return False


def axes_read(node: ir.Node, order: Order) -> list[int]:
    """Read the axes that a mean goes over, on what was not transposed.

    Args:
        node: A mean with constant axes.
        order: `perm` of what it reads.

    Returns:
        The axes.
    """
    held = constant_tensor(node.inputs[1])
    assert held is not None  # told by may_turn
    return [order[axis] for axis in held.numpy().reshape(-1).tolist()]


def in_order_without(order: Order, axes: Sequence[int]) -> bool:
    """Tell whether what is left of an order is in order once some axes are gone.

    Args:
        order: A permutation.
        axes: What goes, by its place before.

    Returns:
        Whether the others keep their order.
    """
    left = [axis for axis in order if axis not in axes]
    return bool(axes) and left == sorted(left)


def _computed(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None and constant_tensor(value) is None]


def _order_given(value: ir.Value, region_of: dict[ir.Node, Region]) -> Order | None:
    """Order in which a tensor comes: that of the transposition or the region that writes it."""
    producer = value.producer()
    if producer in region_of and not ends_order(producer):
        return region_of[producer].order
    return order_of(producer)


def _regions_beside(node: ir.Node, order: Order, region_of: dict[ir.Node, Region]) -> list[Region]:
    """Regions that a node belongs to, the largest first: it reads what they write, or the same transpositions."""
    near: list[ir.Node] = []
    for value in _computed(node):
        producer = value.producer()
        assert producer is not None  # it gives an order
        near += [producer] if producer in region_of else [reader for reader, _ in value.uses()]
    found = dict.fromkeys(region_of[other] for other in near if other in region_of)
    return sorted(
        (region for region in found if region.order == order), key=lambda region: -len(region.nodes)
    )


def _leave_what_gains_nothing(region: Region) -> None:
    """Drop nodes at the end that read one tensor and would need a transposition behind them."""
    for node in reversed(list(region.nodes)):
        value = node.outputs[0]
        last = not any(reader in region.nodes for reader, _ in value.uses())
        if (
            last
            and len(_computed(node)) == 1
            and not given_back(value, region.order)
            and not ends_order(node)
        ):
            del region.nodes[node]


def _spared(region: Region) -> int:
    """Transpositions that go, less those that come."""
    read = {value for node in region.nodes for value in _computed(node)}
    fronts = [value for value in read if value.producer() not in region.nodes]
    written = [node.outputs[0] for node in region.nodes]
    gone = sum(_only_read_in(value, region) for value in fronts)
    gone += sum(len(given_back(value, region.order)) for value in written)
    return gone - sum(needs_order(value, region) for value in written)


def _only_read_in(value: ir.Value, region: Region) -> bool:
    return not value.is_graph_output() and all(reader in region.nodes for reader, _ in value.uses())
