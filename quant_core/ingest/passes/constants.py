"""Compute at once what depends on constants alone, without ever making the model larger."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from quant_core.ingest.find_layers import weight_operands

SMALL = 1024
"""Numbers up to which a folded tensor may be larger than what it replaces."""
_CODE_BITS = 8
_MATRIX = 2
_TRUTHS = 4  # truth values that take the room of one number

# Operators whose reference implementation in onnx is right and quick: no convolutions, pools or interpolations.
_EVALUATED = re.compile(
    r"Abs|Add|And|BatchNormalization|Cast|CastLike|Ceil|Clip|Concat|ConstantOfShape|Cos|CumSum|Div|"
    r"Einsum|Equal|Erf|Exp|Expand|Flatten|Floor|Gather|GatherElements|GatherND|Gemm|Greater|"
    r"GreaterOrEqual|Identity|InstanceNormalization|IsInf|IsNaN|LayerNormalization|Less|LessOrEqual|Log|"
    r"LpNormalization|MatMul|Max|Mean|Min|Mod|Mul|Neg|Not|OneHot|Or|Pad|Pow|Range|Reciprocal|ReduceL1|"
    r"ReduceL2|ReduceMax|ReduceMean|ReduceMin|ReduceProd|ReduceSum|ReduceSumSquare|Relu|Reshape|Round|"
    r"ScatterElements|ScatterND|Shape|Sigmoid|Sign|Sin|Size|Slice|Softmax|Softplus|Split|Sqrt|Squeeze|Sub|"
    r"Sum|Tanh|Tile|Transpose|Trilu|Unsqueeze|Where|Xor"
)


class FoldConstants(ir.passes.InPlacePass):
    """Replace nodes whose operands are all constant by their results.

    A result larger than `SMALL` must replace constants of at least its size that nothing else reads: a transposed
    copy of a shared weight or an expanded table would cost more bytes than it saves nodes. Slices of one constant that
    nothing else reads replace it together, as the gates of a recurrent weight that are brought into another order, and
    so do the matrices that are picked from a stack.
    Matrices of 8 bits or fewer
    are the codes of what is quantized already, and stay as they are stored. Rows looked up in a float
    table stay a lookup unless they are few, because the table can be quantized and the looked-up rows cannot.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in place, in subgraphs too, once constants are initializers."""
        version = model.graph.opset_imports[""]
        modified = False
        for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
            result = _evaluate(node, version) if len(node.outputs) == 1 and is_foldable(node) else None
            if result is not None:
                replace_by_constant(node, result)
                modified = True
        return ir.passes.PassResult(model, modified=modified)


def replace_by_constant(node: ir.Node, result: ir.TensorProtocol) -> None:
    """Store a node's result as an initializer of the same name and remove the node.

    Args:
        node: A node with one output, which is no graph output.
        result: Its value.
    """
    output, graph = node.outputs[0], node.graph
    assert isinstance(graph, ir.Graph)  # only nodes of a graph are folded
    operands = [operand for operand in node.inputs if operand is not None]
    store_constant(output, result, graph)
    graph.remove(node, safe=True)
    for operand in operands:
        # What nobody reads any more makes room at once, so that sizes are judged by what really stays.
        if operand.is_initializer() and not operand.uses() and not operand.is_graph_output():
            owner = operand.graph
            if owner is not None and operand.name is not None and not operand.is_graph_input():
                owner.initializers.pop(operand.name, None)


def store_constant(output: ir.Value, result: ir.TensorProtocol, graph: ir.Graph) -> None:
    """Let an initializer of the same name take the place of what a node writes.

    Args:
        output: What the node writes; no graph output.
        result: Its value.
        graph: Where the initializer is kept.
    """
    result.name = output.name
    value = ir.Value(
        name=output.name,
        type=ir.TensorType(result.dtype),
        shape=ir.Shape(result.shape.numpy()),
        const_value=result,
    )
    output.replace_all_uses_with(value)
    graph.register_initializer(value)


def store_integers(graph: ir.Graph, name: str, numbers: Sequence[int]) -> ir.Value:
    """Add a list of integers, such as a shape, to the initializers.

    Args:
        graph: Where it is kept.
        name: What to call it; nothing else may be called so.
        numbers: Its values.

    Returns:
        The initializer, int64.
    """
    return store_array(graph, name, np.asarray(numbers, np.int64))


def store_floats(graph: ir.Graph, name: str, numbers: npt.ArrayLike) -> ir.Value:
    """Add numbers to the initializers.

    Args:
        graph: Where they are kept.
        name: What to call them; nothing else may be called so.
        numbers: The values, of any shape.

    Returns:
        The initializer, float32.
    """
    return store_array(graph, name, np.asarray(numbers, np.float32))


def store_array(graph: ir.Graph, name: str, array: npt.NDArray[Any]) -> ir.Value:
    """Add an array to the initializers.

    Args:
        graph: Where it is kept.
        name: What to call it; nothing else may be called so.
        array: Its values, of a type that ONNX knows.

    Returns:
        The initializer.
    """
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def is_foldable(node: ir.Node, known: Container[ir.Value] = ()) -> bool:
    """Tell whether a node can be computed beforehand.

    Args:
        node: Any node.
        known: What counts as constant beside initializers.

    Returns:
        False as well where its operands are codes of weights, or where a graph output is what it writes.
    """
    return (
        not node.domain
        and not any(output.is_graph_output() for output in node.outputs)
        and _EVALUATED.fullmatch(node.op_type) is not None
        and not any(_holds_codes(value) for value in node.inputs)
        and all(
            value is None
            or value in known
            or (value.is_initializer() and not value.is_graph_input() and value.const_value is not None)
            for value in node.inputs
        )
    )


def picks_rows(node: ir.Node) -> bool:
    """Tell whether a node looks rows up in a float table, which can be quantized, and no matrix in a stack.

    Args:
        node: Any node.

    Returns:
        False for everything but Gather.
    """
    return node.op_type == "Gather" and any(True for _ in weight_operands(node)) and not _picks_one(node)


def _holds_codes(value: ir.Value | None) -> bool:
    tensor = None if value is None else value.const_value
    return (
        tensor is not None
        and tensor.dtype.bitwidth <= _CODE_BITS
        and tensor.dtype != ir.DataType.BOOL
        and len(tensor.shape) >= 2
    )


def _is_cut_up(value: ir.Value, version: int) -> bool:
    """Whether nodes that cut alone read a constant, and together give no more elements than it has."""
    readers = [node for node, position in value.uses() if position == 0]
    if len(readers) < len(value.uses()) or value.const_value is None:
        return False
    if not all((node.op_type == "Slice" or _picks_one(node)) and is_foldable(node) for node in readers):
        return False
    made = [_output_elements(ir.to_proto(node), _constants(node), version) for node in readers]
    return sum(math.inf if one is None else one[0] for one in made) <= value.const_value.size


def _picks_one(node: ir.Node) -> bool:
    """Whether one matrix of a stack is looked up, not rows of a table."""
    if node.op_type != "Gather" or node.inputs[0] is None or node.inputs[1] is None:
        return False
    stack, index = node.inputs[0].const_value, node.inputs[1].const_value
    return stack is not None and index is not None and len(stack.shape) > _MATRIX and index.size == 1


def _constants(node: ir.Node) -> dict[str, ir.TensorProtocol]:
    return {
        value.name or "": value.const_value
        for value in node.inputs
        if value is not None and value.const_value is not None
    }


def _evaluate(node: ir.Node, version: int) -> ir.TensorProtocol | None:
    """Run one node in onnx's reference implementation, if its result is known to be small enough."""
    tensors = _constants(node)
    proto = ir.to_proto(node)
    # Evaluated first and measured later is too late for ConstantOfShape([10**12]).
    made = _output_elements(proto, tensors, version)
    freed = sum(
        room(value.const_value.size, value.const_value.dtype)
        for value in node.inputs
        if value is not None
        and value.const_value is not None
        and (len(value.uses()) == 1 or _is_cut_up(value, version))
        and not value.is_graph_output()
    )
    limit = SMALL if picks_rows(node) else max(SMALL, freed)
    if made is None or room(*made) > limit:
        return None
    results = evaluate_node(node, tensors, version)
    return results[0] if results is not None and results[0].size == made[0] else None


def room(elements: int, dtype: ir.DataType | None) -> int:
    """Count a tensor in numbers of 32 bits; truth values take a quarter of one.

    Args:
        elements: Its elements.
        dtype: Its type; half precision, which is computed in float32, counts as that.

    Returns:
        What it takes.
    """
    return elements // _TRUTHS if dtype == ir.DataType.BOOL else elements


def evaluate_node(
    node: ir.Node, tensors: Mapping[str, ir.TensorProtocol], version: int
) -> tuple[ir.TensorProtocol, ...] | None:
    """Run one node in onnx's reference implementation.

    Args:
        node: The node.
        tensors: Its operands by name.
        version: The opset.

    Returns:
        What it writes; None where the reference implementation fails.
    """
    proto = ir.to_proto(node)
    graph = onnx.helper.make_graph(
        [proto],
        "constant",
        [onnx.helper.make_tensor_value_info(name, tensor.dtype, None) for name, tensor in tensors.items()],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in proto.output],
    )
    from onnx.reference import ReferenceEvaluator  # slow to load, and many graphs have nothing to fold

    evaluator = ReferenceEvaluator(graph, opsets={"": version})
    try:
        with np.errstate(all="ignore"):
            results = evaluator.run(None, {name: tensor.numpy() for name, tensor in tensors.items()})
    except Exception:
        # What cannot be evaluated here stays a node, for onnxruntime to evaluate or to refuse.
        return None
    arrays = [np.array(result, order="C") for result in results]
    for array in arrays:
        # Like the tensors of a file: what several stages share is not written to.
        array.flags.writeable = False
    return tuple(ir.tensor(array) for array in arrays)


def _output_elements(
    proto: onnx.NodeProto, tensors: dict[str, ir.TensorProtocol], version: int
) -> tuple[int, ir.DataType] | None:
    """Infer how many elements of which type a node with constant operands gives; None if that cannot be told."""
    types = {
        name: onnx.helper.make_tensor_type_proto(tensor.dtype, tensor.shape.numpy())
        for name, tensor in tensors.items()
    }
    values = {name: ir.to_proto(tensor) for name, tensor in tensors.items() if tensor.size <= SMALL}
    try:
        schema = onnx.defs.get_schema(proto.op_type, version, "")
        inferred = onnx.shape_inference.infer_node_outputs(
            schema, proto, types, values, opset_imports=[onnx.helper.make_opsetid("", version)]
        )
    except (onnx.shape_inference.InferenceError, onnx.defs.SchemaError):
        return None
    found = inferred.get(proto.output[0])
    if found is None or not found.tensor_type.HasField("shape"):
        return None
    sizes = [size.dim_value if size.HasField("dim_value") else None for size in found.tensor_type.shape.dim]
    known = [size for size in sizes if size is not None]
    return (math.prod(known), ir.DataType(found.tensor_type.elem_type)) if len(known) == len(sizes) else None
