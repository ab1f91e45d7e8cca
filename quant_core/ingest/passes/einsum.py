"""Write an Einsum with a weight as the matrix product that it is."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_tensor, own_constant
from quant_core.ingest.passes.constants import store_integers

_EQUATION = re.compile(r"((?:\.\.\.)?[A-Za-z]+),([A-Za-z]+)->((?:\.\.\.)?[A-Za-z]+)")
_ANY = "..."


class EinsumToMatMul(ir.passes.InPlacePass):
    """Rewrite Einsum of an activation and a constant as Transpose, Reshape and MatMul, as few of them as it takes.

    Axes that both operands and the result have become a stack of matrices, those that the operands share and the result
    has not are summed over. Left alone are equations in which an operand names an axis twice or one that nothing else
    has, and a constant that other nodes read too.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place; only the main graph, once constants are folded."""
        modified = False
        for node in list(model.graph):
            if node.op_type == "Einsum" and not node.domain and len(node.inputs) == 2:
                modified |= _rewrite(node, model.graph)
        return ir.passes.PassResult(model, modified=modified)


@dataclass(frozen=True)
class _Product:
    """An equation taken apart, each part axes by their letters.

    Attributes:
        source: Axes of the activation.
        weight: Axes of the constant.
        result: Axes of the result.
        any: Whether unnamed axes stand before those of activation and result.
    """

    source: str
    weight: str
    result: str
    any: bool

    @property
    def stack(self) -> str:
        """Axes that all have."""
        return "".join(axis for axis in self.weight if axis in self.source and axis in self.result)

    @property
    def summed(self) -> str:
        """Axes that the operands have, in the order of the activation."""
        return "".join(axis for axis in self.source if axis in self.weight and axis not in self.result)

    @property
    def kept(self) -> str:
        """Axes that activation and result have."""
        return "".join(axis for axis in self.source if axis not in self.weight)

    @property
    def made(self) -> str:
        """Axes that constant and result have, in the order of the result."""
        return "".join(axis for axis in self.result if axis not in self.source)

    @property
    def is_product(self) -> bool:
        """Whether every axis has a part in one matrix product of rows."""
        sides = (self.source, self.weight, self.result)
        known = set(self.result) <= set(self.source + self.weight)
        used = set(self.source) ^ set(self.weight) <= set(self.result)
        once = all(len(set(side)) == len(side) for side in sides)
        rows = bool(self.kept) or (self.any and not self.stack)
        plain = not self.any or (
            len(self.summed) == len(self.made) == 1 and not self.stack and self.source == self.kept + self.summed
            and self.result == self.kept + self.made
        )  # fmt: skip
        return known and used and once and rows and plain and bool(self.summed and self.made)


def _rewrite(node: ir.Node, graph: ir.Graph) -> bool:
    found = _weight(node)
    if found is None:
        return False
    weight, position = found
    product = _read(node.attributes.get_string("equation", ""), position)
    tensor, source = weight.const_value, node.inputs[1 - position]
    assert tensor is not None  # _weight names constants only
    if (
        product is None
        or not product.is_product
        or source is None
        or len(tensor.shape) != len(product.weight)
    ):
        return False
    sizes = dict(zip(product.weight, tensor.shape.numpy(), strict=True))
    matrix = _turned(weight, product, sizes)
    nodes: list[ir.Node] = []

    def add(op: str, inputs: list[ir.Value], name: str, **attributes: list[int]) -> ir.Value:
        made = ir.node(op, inputs, attributes=attributes, name=name)
        nodes.append(made)
        return made.outputs[0]

    # Rows are the last of the axes that are kept; the others and the stack stand before them.
    prefix = str(node.outputs[0].name)  # names of nodes may repeat
    order = product.kept[:-1] + product.stack + product.kept[-1:]
    if product.source != order + product.summed:
        perm = [product.source.index(axis) for axis in order + product.summed]
        source = add("Transpose", [source], f"{prefix}/rows", perm=perm)
    if len(product.summed) > 1:
        shape = [0] * len(order) + [math.prod(sizes[axis] for axis in product.summed)]
        source = add("Reshape", [source, store_integers(graph, f"{prefix}/summed", shape)], f"{prefix}/merge")
    value = add("MatMul", [source, matrix], str(node.name))
    if len(product.made) > 1:
        shape = [0] * len(order) + [sizes[axis] for axis in product.made]
        value = add("Reshape", [value, store_integers(graph, f"{prefix}/made", shape)], f"{prefix}/split")
    if product.result != order + product.made:
        perm = [(order + product.made).index(axis) for axis in product.result]
        value = add("Transpose", [value], f"{prefix}/result", perm=perm)
    ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, [node.outputs[0]], [value])
    return True


def _weight(node: ir.Node) -> tuple[ir.Value, int] | None:
    """The only operand that is a constant, if nothing else reads it."""
    constants = [
        (value, position)
        for position, value in enumerate(node.inputs)
        if value is not None and constant_tensor(value) is not None
    ]
    return constants[0] if len(constants) == 1 and own_constant(constants[0][0]) is not None else None


def _read(equation: str, position: int) -> _Product | None:
    text = equation.replace(" ", "")
    if position == 0:
        left, comma, rest = text.partition(",")
        right, arrow, result = rest.partition("->")
        text = right + comma + left + arrow + result
    found = _EQUATION.fullmatch(text)
    if found is None:
        return None
    source, weight, result = found.groups()
    unnamed = source.startswith(_ANY)
    if unnamed != result.startswith(_ANY):
        return None
    return _Product(source.removeprefix(_ANY), weight, result.removeprefix(_ANY), unnamed)


def _turned(weight: ir.Value, product: _Product, sizes: dict[str, int]) -> ir.Value:
    """The constant as a stack of matrices, inputs before outputs, under its own name."""
    parts = [*product.stack, product.summed, product.made]
    shape = [math.prod(sizes[axis] for axis in part) for part in parts]
    perm = [product.weight.index(axis) for axis in "".join(parts)]
    assert weight.const_value is not None  # it is a constant
    if perm == sorted(perm) and len(shape) == len(perm):
        return weight
    array = np.ascontiguousarray(weight.const_value.numpy().transpose(perm).reshape(shape))
    weight.const_value = ir.Tensor(array, name=weight.name)
    weight.shape = ir.Shape(array.shape)
    return weight
