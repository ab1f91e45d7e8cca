"""List the quantizable layers of a normalised graph."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from quant_core.codes import ChannelAxis
from quant_core.ingest.constant_tensors import constant_tensor
from quant_core.ingest.layer import RECURRENT, Layer, Use
from quant_core.ingest.neighbours import with_neighbours
from quant_core.ingest.short_rows import with_short_rows
from quant_core.ingest.stacks import with_rows

QUANTIZABLE_TYPE = ir.DataType.FLOAT
"""onnxruntime's integer kernels scale to float32; `normalise` brings weights of other float types to it."""
_GATES = {1: "W", 2: "R"}
"""Positions of the weights of recurrent nodes, and their names in the standard."""
FLOAT_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


def find_layers(model: ir.Model) -> tuple[Layer, ...]:
    """Collect every float32 weight that only quantizable operators of the main graph read.

    Quantizable are Conv, ConvTranspose and Gemm with a constant second operand, MatMul with one constant operand
    of rank 2 or more, Gather from a constant table of rank 2 or more (beside products or other Gathers only if all of
    them pick along the same axis, beside products the first), and the constant ones of the weights W and R of LSTM, GRU
    and RNN, each by itself. A weight that anything else reads as well, that a subgraph reads, or that is a graph output
    is no layer, since its float values would have to stay in the file: `unquantizable` names those.

    Args:
        model: A normalised model.

    Returns:
        Layers in the order of their first use, without what depends on shapes.
    """
    uses: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
    for node in model.graph:
        for operand in weight_operands(node):
            weight = node.inputs[operand]
            assert weight is not None  # weight_operands names present inputs only
            uses.setdefault(weight, []).append((node, operand))
    layers = tuple(
        _layer(weight, readers) for weight, readers in uses.items() if only_layers_read(weight, model.graph)
    )
    return with_neighbours(with_short_rows(with_rows(layers, model), model), model.graph)


def weight_operands(
    node: ir.Node, types: Collection[ir.DataType] = frozenset({QUANTIZABLE_TYPE})
) -> Iterator[int]:
    """Name the operands of a node that are weights which can be quantized.

    Args:
        node: Any node.
        types: Element types a weight may have.

    Yields:
        Positions among the node's inputs; none for other operators.
    """
    if node.domain not in {"", "ai.onnx"}:
        return
    if node.op_type in RECURRENT:
        if node.inputs[1] is not node.inputs[2]:
            yield from (operand for operand in _GATES if _is_constant(node.inputs[operand], 3, types))
        return
    match node.op_type:
        case "Conv" | "ConvTranspose" | "Gemm":
            candidates: tuple[int, ...] = (1,)
            rank = 2
        case "MatMul":
            candidates = (0, 1)
            rank = 2
        case "Gather":
            candidates = (0,)
            rank = 2
        case _:
            return
    constant = [index for index in candidates if _is_constant(node.inputs[index], rank, types)]
    if len(constant) == 1:
        yield constant[0]


def only_layers_read(weight: ir.Value, graph: ir.Graph) -> bool:
    """Tell whether a weight serves quantizable operators of the main graph and nothing else.

    Args:
        weight: An initializer.
        graph: The main graph.

    Returns:
        True if no other use would keep its float values alive.
    """
    readers = weight.uses()
    return (
        not weight.is_graph_output()
        and all(node.graph is graph and operand in weight_operands(node) for node, operand in readers)
        and picks_alike([node for node, _ in readers], weight)
    )


def picks_alike(readers: Sequence[ir.Node], weight: ir.Value) -> bool:
    """Tell whether those that pick from a weight do so along one axis, which beside products is the first.

    Args:
        readers: The nodes that read it.
        weight: The weight.

    Returns:
        True also where none picks.
    """
    tensor = weight.const_value
    assert tensor is not None  # only constants are asked about
    rank = len(tensor.shape)
    axes = {gathered_axis(node, rank) for node in readers if node.op_type == "Gather"}
    alone = all(node.op_type == "Gather" for node in readers)
    return len(axes) <= 1 and (alone or axes <= {0})


def gathered_axis(node: ir.Node, rank: int) -> int:
    """Name the axis that a Gather picks along.

    Args:
        node: The node.
        rank: Rank of the table.

    Returns:
        The axis, counted from the first.
    """
    axis: int = node.attributes.get_int("axis", 0)
    return axis % rank


def reads_whole(node: ir.Node) -> bool:
    """Tell whether a node looks up all rows of a constant in their order.

    Args:
        node: Any node.

    Returns:
        False for everything but such a Gather.
    """
    if node.op_type != "Gather" or node.domain:
        return False
    table, rows = (None if value is None else value.const_value for value in node.inputs)
    if table is None or rows is None or len(rows.shape) != 1:
        return False
    shape = table.shape.numpy()
    length = shape[gathered_axis(node, len(shape))]
    return rows.size == length and np.array_equal(rows.numpy(), np.arange(length))


def channel_axis(node: ir.Node, operand: int, shape: tuple[int, ...]) -> ChannelAxis:
    """Name the axes of a weight along which each output channel can have a scale of its own.

    Args:
        node: A node that reads the weight.
        operand: The weight's position among its inputs.
        shape: Shape of the weight.

    Returns:
        The axis; of a stack of matrices also those that it is stacked along; None where output channels do not lie
        along axes of their own.
    """
    match node.op_type:
        case "Conv":
            return 0
        case "Gather":
            return gathered_axis(node, len(shape))
        case "ConvTranspose":
            # Grouped: axis 1 repeats over the groups, and axis 0 is input channels, each with its own output if alone.
            groups = node.attributes.get_int("group", 1)
            depthwise = shape[0] == groups and shape[1] == 1
            return 1 if groups == 1 else 0 if depthwise else None
        case "Gemm":
            return 0 if node.attributes.get_int("transB", 0) else 1
        case "GRU" | "LSTM" | "RNN":
            return 1
        case _:
            rank = len(shape)
            channels = rank - 1 if operand == 1 else rank - 2
            stacked = [at for at in range(rank - 2) if shape[at] > 1]
            return (*stacked, channels) if stacked else channels


def _is_constant(value: ir.Value | None, rank: int, types: Collection[ir.DataType]) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and tensor.dtype in types and len(tensor.shape) >= rank and tensor.size > 0


def _layer(weight: ir.Value, readers: list[tuple[ir.Node, int]]) -> Layer:
    tensor = weight.const_value
    assert tensor is not None  # only constants are collected
    assert weight.name  # and initializers have names
    shape = tuple(tensor.shape.numpy())
    first, position = readers[0]
    uses = []
    axes = set()
    for node, operand in readers:
        # The activation is the other of the two operands; for Gather, the row numbers.
        activation = node.inputs[0 if node.op_type in RECURRENT else 1 - operand]
        uses.append(
            Use(
                node=_name(node),
                op=node.op_type,
                input=(activation.name or "") if activation else "",
                output=_written(node),
                operand=operand,
            )
        )
        axes.add(channel_axis(node, operand, shape))
    bias = (
        first.inputs[2]
        if first.op_type in {"Conv", "ConvTranspose", "Gemm"} and len(first.inputs) > 2
        else None
    )
    return Layer(
        name=f"{_name(first)}.{_GATES[position]}" if first.op_type in RECURRENT else _name(first),
        op=first.op_type,
        weight=weight.name,
        shape=shape,
        axis=axes.pop() if len(axes) == 1 else None,
        uses=tuple(uses),
        bias=bias.name if bias is not None and bias.is_initializer() else None,
        group=first.attributes.get_int("group", 1) if "Conv" in first.op_type else 1,
    )


def _name(node: ir.Node) -> str:
    return node.name or _written(node)


def _written(node: ir.Node) -> str:
    """The first output that something reads; recurrent nodes have several, which may be left out."""
    read = (value for value in node.outputs if value.uses() or value.is_graph_output())
    return next(read, node.outputs[0]).name or ""
