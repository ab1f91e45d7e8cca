"""Take apart operators of onnxruntime's own domain that hold weights, so that these are layers like others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_tensor
from quant_core.ingest.find_layers import FLOAT_TYPES
from quant_core.ingest.shape_inference import infer_shapes

DOMAIN = "com.microsoft"
_MATRIX = 2
_MASK_OF_KEYS = 2  # axes of a mask that says of each sample which keys it has
_ACTIVATIONS: dict[str, tuple[tuple[str, float], ...]] = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "Softplus": (),
    "Softsign": (),
    "LeakyRelu": (("alpha", 0.01),),
    "Elu": (("alpha", 1.0),),
    "HardSigmoid": (("alpha", 0.2), ("beta", 0.5)),
}
"""What a fused node may end with, the attributes it takes there, and their defaults."""


class UnfuseLayers(ir.passes.InPlacePass):
    """Rewrite FusedConv, FusedGemm, FusedMatMul, Attention and EmbedLayerNormalization with constant weights.

    onnxruntime's optimizers write them into files. They become a convolution, a product or lookups with what surrounds
    these, which onnxruntime fuses again where that is faster; Attention becomes a product and MultiHeadAttention.
    Forms that have no counterpart stay: an Attention with a past, or with a mask that tells more than which keys count.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place; only the main graph, once constants are initializers."""
        found = [node for node in model.graph if node.domain == DOMAIN and node.op_type in _REWRITES]
        modified = False
        if found:
            infer_shapes(model)
        for node in found:
            parts = _Parts(node, model.graph)
            results = _REWRITES[node.op_type](node, parts)
            if results is not None:
                old, new = zip(*results, strict=True)
                for value, part in zip(old, new, strict=True):
                    part.type, part.shape = part.type or value.type, part.shape or value.shape
                ir.convenience.replace_nodes_and_values(model.graph, node, [node], parts.nodes, old, new)
                modified = True
        return ir.passes.PassResult(model, modified=modified)


class _Parts:
    """The nodes that take the place of one."""

    def __init__(self, node: ir.Node, graph: ir.Graph) -> None:
        self.nodes: list[ir.Node] = []
        self._graph, self._prefix = graph, node.name or node.outputs[0].name

    def add(
        self, op: str, inputs: Sequence[ir.Value | None], domain: str = "", **attributes: Any
    ) -> ir.Value:
        """Append a node with one output and give that."""
        return self.append(ir.node(op, inputs, attributes, domain=domain)).outputs[0]

    def append(self, node: ir.Node) -> ir.Node:
        node.name = f"{self._prefix}/{node.op_type}_{len(self.nodes)}"
        for place, output in enumerate(node.outputs):
            output.name = f"{node.name}_{place}"
        self.nodes.append(node)
        return node

    def constant(self, array: np.ndarray) -> ir.Value:
        name = f"{self._prefix}/constant_{len(self._graph.initializers)}"
        tensor = ir.tensor(array, name=name)
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
        )
        self._graph.register_initializer(value)
        return value


_Results = list[tuple[ir.Value, ir.Value]] | None
"""What the node wrote, and what is put in its place; None where the node has to stay."""


def _conv(node: ir.Node, parts: _Parts) -> _Results:
    given = node.attributes.get("activation_params")
    act = _activation(node, [] if given is None else list(given.as_floats()))
    if act is None:
        return None
    kept = {k: v for k, v in node.attributes.items() if not k.startswith("activation")}
    out = parts.append(ir.Node("", "Conv", node.inputs[:3], kept.values())).outputs[0]
    added = _input(node, 3)
    return [(node.outputs[0], act(parts, out if added is None else parts.add("Add", [out, added])))]


def _gemm(node: ir.Node, parts: _Parts) -> _Results:
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    act = _activation(node, [node.attributes.get_float(name) for name in names if name in node.attributes])
    if act is None:
        return None
    kept = [v for k, v in node.attributes.items() if not k.startswith("activation")]
    return [(node.outputs[0], act(parts, parts.append(ir.Node("", "Gemm", node.inputs, kept)).outputs[0]))]


def _matmul(node: ir.Node, parts: _Parts) -> _Results:
    left, right = node.inputs
    flags = {k: node.attributes.get_int(k, 0) for k in ("transA", "transB", "transBatchA", "transBatchB")}
    tensor = _weight(right)
    if tensor is None or flags["transA"] or flags["transBatchA"] or flags["transBatchB"]:
        return None
    if flags["transB"]:
        axes = list(range(len(tensor.shape)))
        right = parts.add("Transpose", [right], perm=[*axes[:-2], axes[-1], axes[-2]])
    out, alpha = parts.add("MatMul", [left, right]), node.attributes.get_float("alpha", 1.0)
    if alpha != 1:
        out = parts.add("Mul", [out, parts.constant(np.array(alpha, tensor.dtype.numpy()))])
    return [(node.outputs[0], out)]


def _attention(node: ir.Node, parts: _Parts) -> _Results:
    source, weight, bias, mask, past, extra = (_input(node, place) for place in range(6))
    has_present = len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output())
    rank = 0 if mask is None or mask.shape is None else len(mask.shape)
    known = mask is None or rank == _MASK_OF_KEYS or _counts_keys(mask)
    tensor = _weight(weight)
    if tensor is None or past is not None or has_present or not known:
        return None
    if node.attributes.get_int("do_rotary", 0):
        return None
    if mask is not None and rank != _MASK_OF_KEYS:
        mask = _of_keys(mask, source, parts)
    sizes = node.attributes.get_ints("qkv_hidden_sizes", None)
    sizes = sizes or [tensor.shape.numpy()[1] // 3] * 3
    out = parts.add("MatMul", [source, weight])
    out = out if bias is None else parts.add("Add", [out, bias])
    cut = parts.append(ir.node("Split", [out, parts.constant(np.array(sizes))], {"axis": -1}, num_outputs=3))
    taken = ("num_heads", "scale", "mask_filter_value", "unidirectional")
    attributes = [node.attributes[name] for name in taken if name in node.attributes]
    attend = ir.Node(DOMAIN, "MultiHeadAttention", [*cut.outputs, None, mask, extra], attributes)
    return [(node.outputs[0], parts.append(attend).outputs[0])]


def _counts_keys(mask: ir.Value) -> bool:
    """Whether a mask is the number of keys of each sample, as a sum over a mask of keys gives."""
    maker = mask.producer()
    while maker is not None and maker.op_type == "Cast":
        maker = None if maker.inputs[0] is None else maker.inputs[0].producer()
    return maker is not None and maker.op_type == "ReduceSum" and not maker.attributes.get_int("keepdims", 1)


def _of_keys(counts: ir.Value, source: ir.Value | None, parts: _Parts) -> ir.Value:
    """Append what makes a mask of keys from their numbers."""
    zero, one = (parts.constant(np.array(number, np.int32)) for number in (0, 1))
    place, last = parts.constant(np.array(1)), parts.constant(np.array([1]))
    length = parts.add("Gather", [parts.add("Shape", [source]), place])
    keys = parts.add("Range", [zero, parts.add("Cast", [length], to=ir.DataType.INT32.value), one])
    seen = parts.add("Less", [keys, parts.add("Unsqueeze", [counts, last])])
    return parts.add("Cast", [seen], to=ir.DataType.INT32.value)


def _embed(node: ir.Node, parts: _Parts) -> _Results:
    ids, segments, words, positions, segment_table, gamma, beta, mask, places = (
        _input(node, place) for place in range(9)
    )
    read = [value if value.uses() or value.is_graph_output() else None for value in node.outputs]
    outputs = [*read, None, None]
    if None in (_weight(words), _weight(positions)) or (outputs[1] is not None and mask is None):
        return None
    if places is None:
        zero, one = (parts.constant(np.array(number)) for number in (0, 1))
        length = parts.add("Gather", [parts.add("Shape", [ids]), one])
        places = parts.add("Range", [zero, length, one])
    out = parts.add("Add", [parts.add("Gather", [words, ids]), parts.add("Gather", [positions, places])])
    if segments is not None and segment_table is not None:
        out = parts.add("Add", [out, parts.add("Gather", [segment_table, segments])])
    epsilon = node.attributes.get_float("epsilon", 1e-12)
    results = [
        (node.outputs[0], parts.add("LayerNormalization", [out, gamma, beta], axis=-1, epsilon=epsilon))
    ]
    if outputs[1] is not None:
        count = parts.add("ReduceSum", [mask, parts.constant(np.array([1]))], keepdims=0)
        results.append((outputs[1], parts.add("Cast", [count], to=ir.DataType.INT32.value)))
    if outputs[2] is not None:
        results.append((outputs[2], out))
    return results


_REWRITES: dict[str, Callable[[ir.Node, _Parts], _Results]] = {
    "Attention": _attention,
    "EmbedLayerNormalization": _embed,
    "FusedConv": _conv,
    "FusedGemm": _gemm,
    "FusedMatMul": _matmul,
    "TransposeMatMul": _matmul,
}


def _activation(node: ir.Node, given: Sequence[float]) -> Callable[[_Parts, ir.Value], ir.Value] | None:
    """What appends the activation that a fused node names; None for one not known here, and without a weight."""
    name, weight = node.attributes.get_string("activation", ""), _weight(_input(node, 1))
    if weight is None:
        return None
    if not name:
        return lambda _parts, value: value
    if name == "Clip":
        kind = np.dtype(weight.dtype.numpy())
        return lambda parts, value: parts.add(
            "Clip", [value, *(parts.constant(np.array(bound, kind)) for bound in given)]
        )
    if name not in _ACTIVATIONS:
        return None
    named = _ACTIVATIONS[name]
    numbers: dict[str, Any] = {
        key: given[at] if at < len(given) else default for at, (key, default) in enumerate(named)
    }
    return lambda parts, value: parts.add(name, [value], **numbers)


def _input(node: ir.Node, place: int) -> ir.Value | None:
    return node.inputs[place] if place < len(node.inputs) else None


def _weight(value: ir.Value | None) -> ir.TensorProtocol | None:
    """What a layer could hold; None for all else."""
    tensor = constant_tensor(value)
    fits = tensor is not None and tensor.dtype in FLOAT_TYPES and len(tensor.shape) >= _MATRIX
    return tensor if fits else None
