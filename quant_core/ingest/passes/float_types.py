"""Compute in float32 what a model stores in half or double precision."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from quant_core.ingest.find_layers import FLOAT_TYPES, QUANTIZABLE_TYPE, weight_operands
from quant_core.ingest.shape_inference import infer_types

COMPUTED_IN_FLOAT32 = "computed_in_float32"
"""Key of `model.meta` under which the types stand that were replaced, as ONNX names them."""

STORED_IN_HALF = "stored_in_half"
"""Key of `model.meta` under which the 16-bit float types stand that the file stores weights in."""

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_SUFFIX = "@float32"
# Attributes that name the element type of a result.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_datatype", "output_dtype")


class ComputeInFloat32(ir.passes.InPlacePass):
    """Replace float16, bfloat16 or double by float32 in models whose layers hold weights of that type.

    onnxruntime's integer kernels scale to float32, and its CPU kernels for half precision convert to it around every
    node. float16 and bfloat16 values are float32 values, so only roundings between nodes go away; double values are
    rounded. Graph inputs and outputs keep their types, behind one Cast each. A type that no layer has, such as double
    positions in a float32 model, is left alone.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace in place, in subgraphs too.

        Args:
            model: A model whose constants are initializers.

        Returns:
            The same model; `model.meta` names the types.
        """
        stored = {
            value.const_value.dtype
            for graph in model.graphs()
            for value in graph.initializers.values()
            if value.const_value is not None and value.const_value.dtype in _HALF
        }
        model.meta[STORED_IN_HALF] = tuple(sorted(kind.name.lower() for kind in stored))
        types = frozenset(_weight_types(model.graph))
        if not types:
            return ir.passes.PassResult(model, modified=False)
        infer_types(model)
        for graph in model.graphs():
            for value in list(graph.initializers.values()):
                if not value.is_graph_output():
                    _store(value, types)
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            _retype(node, types)
        for graph in model.graphs():
            if graph is not model.graph:
                for value in (*graph.inputs, *graph.outputs):
                    _declare(value, types)
        _cast_inputs(model.graph, types)
        _cast_outputs(model.graph, types)
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            for value in node.outputs:
                if not (value.is_graph_output() and node.graph is model.graph):
                    _declare(value, types)
        model.meta[COMPUTED_IN_FLOAT32] = tuple(sorted(kind.name.lower() for kind in types))
        return ir.passes.PassResult(model, modified=True)


def _weight_types(graph: ir.Graph) -> Iterator[ir.DataType]:
    for node in graph:
        for operand in weight_operands(node, FLOAT_TYPES):
            weight = node.inputs[operand]
            tensor = None if weight is None else weight.const_value
            if tensor is not None and tensor.dtype != QUANTIZABLE_TYPE:
                yield tensor.dtype


def _store(value: ir.Value, types: frozenset[ir.DataType]) -> None:
    if value.const_value is not None and value.const_value.dtype in types:
        value.const_value = _as_float32(value.const_value)
        value.type = ir.TensorType(ir.DataType.FLOAT)


def _as_float32(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    array = tensor.numpy()
    if tensor.dtype == ir.DataType.DOUBLE:
        # The most negative double, which masks are made of, becomes the most negative float, not infinity.
        limit = np.finfo(np.float32).max
        array = np.where(np.isfinite(array), np.clip(array, -limit, limit), array)
    converted = array.astype(np.float32)
    converted.flags.writeable = False
    return ir.Tensor(converted, name=tensor.name)


def _retype(node: ir.Node, types: frozenset[ir.DataType]) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.is_ref():
            continue
        if name in _TYPE_ATTRIBUTES and attribute.type == ir.AttributeType.INT:
            if attribute.as_int() in types:
                node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
        elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in types:
            node.attributes[name] = ir.AttrTensor(name, _as_float32(attribute.as_tensor()))


def _declare(value: ir.Value, types: frozenset[ir.DataType]) -> None:
    if value.type is not None:
        value.type = _in_float32(value.type, types)


def _in_float32(given: ir.TypeProtocol, types: frozenset[ir.DataType]) -> ir.TypeProtocol:
    if isinstance(given, ir.SequenceType | ir.OptionalType):
        return type(given)(_in_float32(given.elem_type, types))
    halved = isinstance(given, ir.TensorType) and given.dtype in types
    return ir.TensorType(ir.DataType.FLOAT) if halved else given


def _cast_inputs(graph: ir.Graph, types: frozenset[ir.DataType]) -> None:
    for value in graph.inputs:
        if value.dtype not in types or not value.uses():
            continue
        cast = ir.node("Cast", [value], attributes={"to": ir.DataType.FLOAT}, name=f"{value.name}{_SUFFIX}")
        (result,) = cast.outputs
        result.name, result.type, result.shape = f"{value.name}{_SUFFIX}", _FLOAT, value.shape
        value.replace_all_uses_with(result)
        cast.replace_input_with(0, value)
        graph.insert_before(graph[0], cast)


def _cast_outputs(graph: ir.Graph, types: frozenset[ir.DataType]) -> None:
    for position, value in enumerate(graph.outputs):
        producer = value.producer()
        name, kind = value.name, value.dtype
        if kind is None or kind not in types or producer is None or producer.graph is not graph:
            continue
        value.name, value.type = f"{name}{_SUFFIX}", _FLOAT
        cast = ir.node("Cast", [value], attributes={"to": kind}, name=f"{name}/Cast")
        (result,) = cast.outputs
        result.name, result.type, result.shape = name, ir.TensorType(kind), value.shape
        graph.outputs[position] = result
        graph.append(cast)


_FLOAT = ir.TensorType(ir.DataType.FLOAT)
