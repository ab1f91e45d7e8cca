"""Make layers of large constants that no layer reads, so that they are stored packed and unpacked at load."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from quant_core.ingest.find_layers import (
    QUANTIZABLE_TYPE,
    channel_axis,
    only_layers_read,
    weight_operands,
)
from quant_core.ingest.layer import RECURRENT
from quant_core.ingest.reading.quantized_parts import works_on_codes
from quant_core.ingest.subgraphs import bodies

FEWEST = 1024
"""Elements below which packing saves little more than its nodes take."""
_SHARE = 1 / 200
"""Share of all constants from which a tensor that is no operator's weight is packed."""
_FEWEST_VALUES, _ENOUGH_VALUES, _PER_PLACE = 512, 4096, 4
_LARGEST = 1e4
_STEPS, _FEW = 64, 0.1
_ROW = 64  # elements that a step of their own is worth
_STATES = 3  # operands of recurrent nodes from here on are biases, lengths and states


class ReadLargeConstantsWhole(ir.passes.InPlacePass):
    """Let what reads a large constant read a Gather of all its rows instead, which can look them up packed.

    Those are weights inside of the bodies of If, Loop and Scan, which move to the main graph, and weights of operators
    that are no layers: of a modulated convolution, of Attention with a past, tables of positions. The exporter leaves
    nothing of the Gather but the unpacking, which onnxruntime folds when it loads the file.

    Masks, grids and tables of coordinates stay what they are: their values are few, or combinations of few, and
    answers may hang on each. So do biases and states of recurrent nodes.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place, once constants are folded."""
        main = model.graph
        found = [value for graph in _graphs(main) for value in graph.initializers.values()]
        least = _SHARE * sum(value.const_value.size for value in found if value.const_value is not None)
        modified = False
        for value in found:
            if _is_packed(value, main, least):
                _read_whole(value, main)
                modified = True
        return ir.passes.PassResult(model, modified=modified)


def _graphs(main: ir.Graph) -> Iterator[ir.Graph]:
    """The main graph and all bodies."""
    yield main
    for node in ir.traversal.RecursiveGraphIterator(main):
        yield from bodies(node)


def _is_packed(value: ir.Value, main: ir.Graph, least: float) -> bool:
    tensor = value.const_value
    if tensor is None or tensor.dtype != QUANTIZABLE_TYPE or tensor.size < FEWEST:
        return False
    if (
        sum(size > 1 for size in tensor.shape.numpy()) < 2
        or value.is_graph_input()
        or value.is_graph_output()
    ):
        return False
    readers = value.uses()
    if not readers or any(_keeps_floats(node, operand) for node, operand in readers):
        return False
    if value.graph is main and only_layers_read(value, main):
        return False
    is_weight = all(operand in weight_operands(node) for node, operand in readers)
    if not is_weight and tensor.size < least:
        return False
    values = tensor.numpy()
    return _is_learned(values) and _bears_steps(values, _step_axis(value))


def _keeps_floats(node: ir.Node, operand: int) -> bool:
    return works_on_codes(node.op_type) or (node.op_type in RECURRENT and operand >= _STATES)


def _is_learned(values: npt.NDArray[np.float32]) -> bool:
    """Whether values differ as learned ones do; a grid has about as many as it has places along its axes."""
    if not np.isfinite(values).all() or np.abs(values).max() > _LARGEST:
        return False
    fewest = min(max(_FEWEST_VALUES, _PER_PLACE * sum(values.shape)), _ENOUGH_VALUES)
    return np.unique(values).size > fewest


def _bears_steps(values: npt.NDArray[np.float32], axis: int) -> bool:
    """Whether 8 bits with a step for each slice leave something of what is not largest."""
    # Learned values that a mask was added to lie far from what it marks, and all would round to almost nothing.
    sizes = np.abs(np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1))
    largest = sizes.max(axis=1, keepdims=True)
    others = ((sizes > 0) & (sizes <= largest / 2)).sum(axis=1)
    lost = ((sizes > 0) & (sizes < largest / _STEPS)).sum(axis=1)
    return bool((lost > others / 2).mean() <= _FEW)


def _read_whole(value: ir.Value, main: ir.Graph) -> None:
    tensor = value.const_value
    assert tensor is not None  # checked by _is_packed
    axis = _step_axis(value)
    readers = list(value.uses())
    if value.graph is not main:
        value = _moved(value, main)
    numbers = ir.tensor(np.arange(tensor.shape.numpy()[axis]))
    order = ir.val(_free(f"{value.name}/rows", main.initializers), const_value=numbers)
    main.register_initializer(order)
    read = ir.Value(name=f"{value.name}/read", type=value.type, shape=value.shape)
    named = {str(node.name) for node in ir.traversal.RecursiveGraphIterator(main)}
    name = _free(str(value.name), named)
    gather = ir.node("Gather", [value, order], {"axis": axis}, name=name, outputs=[read])
    main.insert_before(main[0], gather)
    for node, operand in readers:
        node.replace_input_with(operand, read)


def _moved(value: ir.Value, main: ir.Graph) -> ir.Value:
    """The same constant in the main graph."""
    made = {str(other.name) for node in main for other in node.outputs}
    taken = {*main.initializers, *made, *(str(given.name) for given in main.inputs)}
    name = _free(str(value.name), taken)
    moved = ir.Value(name=name, type=value.type, shape=value.shape, const_value=value.const_value)
    main.register_initializer(moved)
    assert value.graph is not None  # it is an initializer
    value.graph.initializers.pop(str(value.name))
    return moved


def _free(name: str, taken: Container[str]) -> str:
    """The name, or the first one like it that is not taken."""
    numbered = (f"{name}_{number}" for number in itertools.count(1))
    return next(found for found in itertools.chain((name,), numbered) if found not in taken)


def _step_axis(value: ir.Value) -> int:
    """The axis of the outputs of those that read it, or the one along which steps fit the values best."""
    tensor = value.const_value
    assert tensor is not None  # checked by _is_packed
    shape = tuple(tensor.shape.numpy())
    axes = {
        channel_axis(node, operand, shape) if operand in weight_operands(node) else None
        for node, operand in value.uses()
    }
    axis = axes.pop() if len(axes) == 1 else None
    if isinstance(axis, int):
        return axis
    squares = np.square(tensor.numpy(), dtype=np.float64)
    long = [at for at, size in enumerate(shape) if 1 < size <= tensor.size // _ROW]
    worth = {at: float(squares.max(axis=_others(at, len(shape))).mean()) for at in long}
    return min(worth, key=worth.__getitem__, default=int(np.argmax(shape)))


def _others(axis: int, rank: int) -> tuple[int, ...]:
    return tuple(at for at in range(rank) if at != axis)
