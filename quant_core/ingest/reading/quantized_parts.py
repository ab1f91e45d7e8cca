"""Find what a file holds in quantized form already: which nodes, which weights, in which form, at how many bits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import TensorProto

from quant_core.ingest.reading.proto_tensors import GraphVisit, walk_graphs

Form = Literal["qdq", "qoperator", "dynamic", "block", "packed", "activations"]
"""How a part is quantized.

qdq: a float operator behind DequantizeLinear. qoperator: an operator on integers with scales of its own. dynamic:
integer weights, inputs rounded at run time. block: weights with a scale a block, such as MatMulNBits. packed: weights
of 4 bits or fewer that something else reads. activations: QuantizeLinear and DequantizeLinear of activations.
"""

_BITS: dict[int, int] = {
    TensorProto.INT2: 2,
    TensorProto.UINT2: 2,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E4M3FNUZ: 8,
    TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
}
_LOW = 4
_LONGEST_CHAIN = 16
_BLOCK = re.compile(r"MatMulNBits|MatMulBnb4|MatMulFpQ4|GatherBlockQuantized|QMoE")
_DYNAMIC = re.compile(r"\w+Integer|\w+IntegerToFloat|DynamicQuantize\w+")
_OPERATOR = re.compile(r"QLinear\w+|QOrdered\w+|QAttention|QGemm|QEmbedLayerNormalization")
# What may stand between a stored tensor and the DequantizeLinear or operator that it is meant for.
_MOVING = {
    *("Cast", "Gather", "Identity", "Pad", "Reshape"),
    *("Slice", "SpaceToDepth", "Squeeze", "Transpose", "Trellis", "Unsqueeze"),
}
_UNPACKING = re.compile(r"Unpack(\d)")


@dataclass(frozen=True)
class QuantizedPart:
    """One operator that is quantized already, with everything that makes it so.

    Attributes:
        name: Name of the operator that computes, or its output where it has none.
        op: Its type.
        form: How it is quantized.
        nodes: Names of all nodes that belong to it.
        weights: Names of its stored weights.
        bits: Bits of its weights; None where it has none or they cannot be told.
    """

    name: str
    op: str
    form: Form
    nodes: tuple[str, ...]
    weights: tuple[str, ...]
    bits: int | None

    def __str__(self) -> str:
        bits = f" at {self.bits} bits" if self.bits is not None else ""
        stored = f": tensor {', '.join(map(repr, self.weights))}" if self.form == "packed" else ""
        return f"{self.op} '{self.name}' ({self.form}{bits}{stored})"


def find_quantized_parts(model: onnx.ModelProto) -> tuple[QuantizedPart, ...]:
    """Find the quantized parts of the main graph, of subgraphs and of local functions.

    Args:
        model: The parsed file.

    Returns:
        Parts in the order of the graph; empty for a float model.
    """
    return tuple(part for graph in walk_graphs(model) for part in _Finder(graph).parts())


def works_on_codes(op_type: str) -> bool:
    """Tell whether an operator makes, reads or computes with quantized values.

    Args:
        op_type: Its type.

    Returns:
        True for QuantizeLinear, QLinearConv, MatMulNBits and their like.
    """
    kinds = (_BLOCK, _DYNAMIC, _OPERATOR)
    named = op_type in {"QuantizeLinear", "DequantizeLinear"}
    return named or any(kind.fullmatch(op_type) for kind in kinds)


class _Finder:
    def __init__(self, graph: GraphVisit) -> None:
        self.nodes = [node for node in graph.nodes if node.op_type != "Constant"]
        self.stored = {tensor.name: tensor for tensor in graph.initializers}
        for node in graph.nodes:
            held = [a.t for a in node.attribute if a.name == "value" and a.HasField("t")]
            if node.op_type == "Constant" and held:
                self.stored[node.output[0]] = held[0]
        self.makers = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.collected: dict[int, tuple[onnx.NodeProto, Form, dict[str, None], dict[str, int | None]]] = {}

    def parts(self) -> Iterator[QuantizedPart]:
        activations: list[str] = []
        for node in self.nodes:
            if _BLOCK.fullmatch(node.op_type):
                self._collect(node, "block", node)
            elif _DYNAMIC.fullmatch(node.op_type):
                if node.op_type != "DynamicQuantizeLinear" or not self._feeds(node, _DYNAMIC):
                    self._collect(node, "dynamic", node)
            elif _OPERATOR.fullmatch(node.op_type):
                self._collect(node, "qoperator", node)
            elif node.op_type == "DequantizeLinear" and self._chain(node.input[0])[1] is not None:
                for reader in self._computing(node):
                    self._collect(reader, "qdq", node)
            elif node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
                if self._chain(node.input[0])[1] is None:
                    activations.append(_name(node))
            else:
                self._packed(node)
        self._collect_unread()
        for node, form, names, weights in self.collected.values():
            known = [bits for bits in weights.values() if bits is not None]
            yield QuantizedPart(
                _name(node), node.op_type, form, tuple(names), tuple(weights), min(known, default=None)
            )
        if activations:
            yield QuantizedPart(activations[0], "QuantizeLinear", "activations", tuple(activations), (), None)

    def _collect(self, node: onnx.NodeProto, form: Form, source: onnx.NodeProto) -> None:
        """Add what `source` reads to the part of `node`."""
        _, _, names, weights = self.collected.setdefault(id(node), (node, form, {}, {}))
        names |= dict.fromkeys([_name(source), _name(node)])
        for position, name in enumerate(source.input):
            chain, tensor = self._chain(name)
            if (
                tensor is not None
                and (position == 0 or len(tensor.dims) >= 2)
                and not _is_parameter(source, position)
            ):
                names |= dict.fromkeys(map(_name, chain))
                for stored, bits in self._bits(source, name, chain, tensor):
                    weights[stored] = bits
            maker = self.makers.get(name)
            if maker is not None and maker.op_type == "DynamicQuantizeLinear":
                names[_name(maker)] = None

    def _bits(
        self, node: onnx.NodeProto, name: str, chain: Sequence[onnx.NodeProto], tensor: TensorProto
    ) -> Iterator[tuple[str, int | None]]:
        if chain and (unpacking := _UNPACKING.fullmatch(chain[-1].op_type)):
            planes = [stored for stored in chain[-1].input if stored in self.stored]
            yield from ((stored, int(unpacking[1])) for stored in planes)
            return
        stated = [a.i for a in node.attribute if a.name in {"bits", "expert_weight_bits"}]
        bits = _BITS.get(tensor.data_type)
        if bits is None and node.op_type == "DequantizeLinear":
            # A float weight that is quantized in the graph: the zero point tells the type.
            zero = self.stored.get(node.input[2]) if len(node.input) > 2 else None
            bits = 8 if zero is None else _BITS.get(zero.data_type)
        if tensor.data_type == TensorProto.INT32:
            bits = None  # a bias
        first = chain[-1].input[0] if chain else name
        yield first, stated[0] if stated else bits

    def _packed(self, node: onnx.NodeProto) -> None:
        if node.op_type in _MOVING or _UNPACKING.fullmatch(node.op_type):
            return
        for name in node.input:
            chain, tensor = self._chain(name)
            if tensor is None or not (chain or name in self.stored):
                continue
            unpacked = bool(chain) and _UNPACKING.fullmatch(chain[-1].op_type) is not None
            if unpacked or _BITS.get(tensor.data_type, 32) <= _LOW:
                _, _, names, weights = self.collected.setdefault(id(node), (node, "packed", {}, {}))
                names |= dict.fromkeys([*map(_name, chain), _name(node)])
                weights |= dict(self._bits(node, name, chain, tensor))

    def _collect_unread(self) -> None:
        """What has 4 bits or fewer is a part also where nothing of the above reads it."""
        taken = {name for _, _, _, weights in self.collected.values() for name in weights}
        for name, tensor in self.stored.items():
            bits = _BITS.get(tensor.data_type, 32)
            if bits <= _LOW and name not in taken:
                readers = self.readers.get(name, [])
                node = readers[0] if readers else onnx.NodeProto(op_type="tensor", name=name)
                _, _, names, weights = self.collected.setdefault(id(node), (node, "packed", {}, {}))
                names |= dict.fromkeys(map(_name, readers))
                weights[name] = bits

    def _chain(self, name: str) -> tuple[list[onnx.NodeProto], TensorProto | None]:
        """Follow a tensor back to where it is stored; the nodes on the way, nearest first."""
        chain: list[onnx.NodeProto] = []
        while name not in self.stored and len(chain) < _LONGEST_CHAIN:
            maker = self.makers.get(name)
            if maker is None or not maker.input or not self._passes(maker):
                return chain, None
            chain.append(maker)
            name = maker.input[0]
        tensor = self.stored.get(name)
        coded = any(node.op_type == "QuantizeLinear" for node in chain)
        known = tensor is not None and (tensor.data_type in _BITS or tensor.data_type == TensorProto.INT32)
        return chain, tensor if coded or known else None

    def _passes(self, node: onnx.NodeProto) -> bool:
        """Whether a node gives the stored tensor that it reads in another form."""
        if node.op_type == "Gather":
            # Rows of a table of codes; what is looked up in a float table is an activation.
            table = self.stored.get(node.input[0])
            return table is not None and table.data_type in _BITS
        known = node.op_type in _MOVING or node.op_type in {"QuantizeLinear", "DequantizeLinear"}
        return known or _UNPACKING.fullmatch(node.op_type) is not None

    def _computing(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The operators that read a dequantized weight, past those that only move it."""
        found: dict[int, onnx.NodeProto] = {}
        seen = {id(node)}
        open_ends = [node]
        while open_ends:
            for reader in self.readers.get(open_ends.pop().output[0], []):
                if id(reader) in seen:
                    continue
                seen.add(id(reader))
                if reader.op_type in _MOVING - {"Gather"} and reader.output:
                    open_ends.append(reader)
                else:
                    found[id(reader)] = reader
        return list(found.values()) or [node]

    def _feeds(self, node: onnx.NodeProto, kinds: re.Pattern[str]) -> bool:
        return any(
            kinds.fullmatch(reader.op_type) for name in node.output for reader in self.readers.get(name, [])
        )


def _is_parameter(node: onnx.NodeProto, position: int) -> bool:
    """Whether an input is a scale or a zero point."""
    if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
        return position > 0
    return node.op_type == "MatMulNBits" and position in {2, 3}


def _name(node: onnx.NodeProto) -> str:
    return node.name or ", ".join(node.output)
