"""How each layer will run in onnxruntime, and which activation tensors are rounded to 8 bits for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from quant_core.errors import InternalError
from quant_core.export.forms import Form
from quant_core.export.ort_cpu import ORT_CPU
from quant_core.export.target import Target
from quant_core.ingest.layer import Layer

# Operators with an integer kernel of their own in onnxruntime; they take and give 8-bit tensors.
_ROUNDED_OPS = frozenset({"Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat", "Sigmoid", "LeakyRelu"})
# Operators that only move or pick values: they run on the codes and keep their input's grid.
_PASSING_OPS = frozenset({"MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class Placement:
    """Where rounding happens.

    Attributes:
        forms: Layer name -> how it runs.
        points: Activation tensors with an 8-bit grid of their own, in execution order.
        aliases: Tensor -> the tensor whose codes it carries unchanged (reshapes, max pooling).
        absorbed: Names of Relu and Clip nodes that the grid's lower end makes redundant.
        guarded: Names of layers that stay float between rounded tensors and need protection: onnxruntime would
            quantize their weights per tensor when it loads the file.
    """

    forms: Mapping[str, Form]
    points: tuple[str, ...]
    aliases: Mapping[str, str]
    absorbed: frozenset[str]
    guarded: frozenset[str]

    def is_rounded(self, tensor: str) -> bool:
        """Tell whether a tensor exists as 8-bit codes.

        Args:
            tensor: A tensor name.

        Returns:
            True if it has a grid, its own or another's.
        """
        return tensor in self.aliases or tensor in self.points


def layer_form(
    layer: Layer, model: ir.Model, bits: int, activation_bits: int, target: Target = ORT_CPU
) -> Form:
    """Choose how a layer runs at a bit-width.

    Args:
        layer: The layer.
        model: The normalised model it belongs to.
        bits: Bits of its weight.
        activation_bits: 8, or 32 for float activations; what the layer says for itself goes before it.
        target: The runtime.

    Returns:
        The form.

    Raises:
        InternalError: If the target has none for this width.
    """
    form = target.form(layer, model, bits, activation_bits)
    if form is None:
        raise InternalError(f"{target.name} has no form for {layer.name} at {bits} bits")
    return form


def place(
    model: ir.Model,
    layers: Collection[Layer],
    bits: Mapping[str, int],
    activation_bits: int,
    target: Target = ORT_CPU,
) -> Placement:
    """Decide every layer's form and every rounded tensor.

    Inputs and outputs of static layers are rounded, but for those that a part which is quantized already rounds to its
    own grid. A Relu, or a Clip that starts at zero, right after such an
    output is absorbed: the unsigned grid starts at zero and clips by itself. Additions, pools and other operators
    with integer kernels between rounded tensors are rounded too, and operators that only move values run on codes.

    Args:
        model: The normalised model.
        layers: Its layers.
        bits: Layer name -> weight bits.
        activation_bits: 8, or 32 for float activations.
        target: The runtime.

    Returns:
        The placement.
    """
    forms = {
        layer.name: layer_form(layer, model, bits[layer.name], activation_bits, target) for layer in layers
    }
    return _Placer(model, layers, forms).place()


class _Placer:
    def __init__(self, model: ir.Model, layers: Collection[Layer], forms: Mapping[str, Form]) -> None:
        self.graph = model.graph
        self.layers = layers
        self.forms = forms
        self.static_nodes = {
            use.node for layer in layers if forms[layer.name] == "static" for use in layer.uses
        }
        self.points: set[str] = set()
        self.aliases: dict[str, str] = {}
        self.absorbed: set[str] = set()
        self.captured = _captured_names(self.graph)

    def place(self) -> Placement:
        nodes = list(self.graph)
        for node in nodes:
            if node.name in self.static_nodes:
                if not _is_dequantized(node.inputs[0]):
                    self.points.add(_name(node.inputs[0]))
                self._round_output(node)
        for node in nodes:
            self._extend(node)
        points = tuple(
            name for name in _tensor_order(self.graph) if name in self.points and name not in self.aliases
        )
        return Placement(
            forms=self.forms,
            points=points,
            aliases=self.aliases,
            absorbed=frozenset(self.absorbed),
            guarded=self._guarded(nodes),
        )

    def _is_rounded(self, value: ir.Value | None) -> bool:
        return value is not None and (value.name in self.points or _is_dequantized(value))

    def _round_output(self, node: ir.Node) -> None:
        """Round the node's output, or that of the Relu it feeds alone."""
        value = node.outputs[0]
        if node.op_type == "Gemm" and not self._feeds_integers(value):
            return  # its integer kernel can write float
        if _feeds_quantizer(value):
            return
        while (after := self._only_consumer(value)) is not None and _is_rectifier(after):
            if _feeds_quantizer(after.outputs[0]):
                return
            self.absorbed.add(str(after.name))
            value = after.outputs[0]
        self.points.add(_name(value))

    def _feeds_integers(self, value: ir.Value) -> bool:
        for node, _ in value.uses():
            if node.name in self.static_nodes or (node.op_type in _ROUNDED_OPS and node.domain == ""):
                return True
            if (_is_rectifier(node) or _passes(node)) and self._feeds_integers(node.outputs[0]):
                return True
        return False

    def _only_consumer(self, value: ir.Value) -> ir.Node | None:
        uses = tuple(value.uses())
        if len(uses) != 1 or value.is_graph_output() or value.name in self.captured:
            return None
        return uses[0][0]

    def _extend(self, node: ir.Node) -> None:
        """Carry rounding through an operator with an integer kernel whose inputs are all rounded."""
        if node.domain or not node.outputs or node.graph is not self.graph:
            return
        output = node.outputs[0]
        if output.is_graph_output() or output.name in self.captured or not self._feeds_integers(output):
            return
        if _passes(node) and (source := _name(node.inputs[0])) in self.points:
            self.points.add(_name(output))
            self.aliases[_name(output)] = self.aliases.get(source, source)
        elif node.op_type in _ROUNDED_OPS and all(self._is_rounded(value) for value in node.inputs):
            self._round_output(node)

    def _guarded(self, nodes: list[ir.Node]) -> frozenset[str]:
        owner = {use.node: layer.name for layer in self.layers for use in layer.uses}
        guarded = set()
        for node in nodes:
            if node.op_type not in {"Conv", "ConvTranspose", "Gemm"} or node.name in self.static_nodes:
                continue
            if (
                node.name in owner
                and self._is_rounded(node.inputs[0])
                and self._reaches_rounding(node.outputs[0])
            ):
                guarded.add(owner[str(node.name)])
        return frozenset(guarded)

    def _reaches_rounding(self, value: ir.Value) -> bool:
        if self._is_rounded(value) or _feeds_quantizer(value):
            return True
        return any(
            _is_rectifier(node) and self._reaches_rounding(node.outputs[0]) for node, _ in value.uses()
        )


def _is_dequantized(value: ir.Value | None) -> bool:
    """Whether a tensor comes from codes that the model held before."""
    node = None if value is None else value.producer()
    return node is not None and node.op_type == "DequantizeLinear"


def _feeds_quantizer(value: ir.Value) -> bool:
    """Whether nothing reads a tensor but one QuantizeLinear that the model held before."""
    readers = [node for node, _ in value.uses()]
    return len(readers) == 1 and readers[0].op_type == "QuantizeLinear" and not value.is_graph_output()


def _name(value: ir.Value | None) -> str:
    assert value is not None
    assert value.name is not None
    return value.name


def _is_rectifier(node: ir.Node) -> bool:
    if node.domain:
        return False
    if node.op_type == "Relu":
        return True
    if node.op_type != "Clip" or len(node.inputs) < 2:
        return False
    low = node.inputs[1]
    return low is not None and low.const_value is not None and float(low.const_value.numpy()) == 0.0


def _passes(node: ir.Node) -> bool:
    if node.domain or node.op_type not in _PASSING_OPS:
        return False
    return len(node.outputs) == 1


def _captured_names(graph: ir.Graph) -> frozenset[str]:
    """Names that subgraphs read from outside; they must go on existing as float tensors."""
    names = set()
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                names |= _names_inside(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for inner in attribute.as_graphs():
                    names |= _names_inside(inner)
    return frozenset(names)


def _names_inside(graph: ir.Graph) -> set[str]:
    return {
        str(value.name)
        for node in graph.all_nodes()
        for value in node.inputs
        if value is not None and value.name is not None
    }


def _tensor_order(graph: ir.Graph) -> list[str]:
    names = [_name(value) for value in graph.inputs]
    names += [str(value.name) for node in graph for value in node.outputs if value.name]
    return names
