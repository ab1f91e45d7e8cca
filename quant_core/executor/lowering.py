"""Turns an ONNX graph into a flat list of kernel calls over numbered slots.

Functions, those of the model and those the standard defines operators by, are expanded in place. Everything that
depends on stored integers alone is computed here, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch

from quant_core.errors import InternalError, ModelError
from quant_core.executor import constants
from quant_core.executor.dtypes import Kind, Precision, is_float, to_torch
from quant_core.executor.functions import standard_function
from quant_core.executor.kinds import output_kinds
from quant_core.executor.node import Node
from quant_core.executor.registry import find
from quant_core.executor.schedule import ABSENT, Schedule, Step, execute, schedule

MAX_DEPTH = 64
"""Nested functions and subgraphs allowed before a model is refused."""

SMALL = 64
"""Elements up to which a value that depends on float weights is also worked out ahead, for operands such as scales."""


@dataclass(frozen=True)
class Missing:
    """An operator without an implementation.

    Attributes:
        domain: Operator domain; empty for the ONNX standard.
        op: Operator type.
        version: Opset version of the domain.
        node: Node name.
    """

    domain: str
    op: str
    version: int
    node: str


@dataclass
class Setting:
    """What every scope of one compilation shares.

    Attributes:
        precision: Which torch type computes each ONNX type.
        device: Where stored tensors live.
        functions: The model's own functions.
        weights: Every float initializer, by name.
        missing: Operators found without an implementation.
        seed: Base of the seeds of random operators.
        nodes: Nodes lowered so far.
    """

    precision: Precision
    device: torch.device
    functions: Mapping[ir.OperatorIdentifier, ir.Function]
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    seed: int = 0
    nodes: int = 0


class Scope:
    """Slots and steps of one graph body while it is being built.

    Attributes:
        names: Tensor name of every slot.
        kinds: ONNX element type of every slot, None where unknown.
        steps: Kernel calls in execution order.
        known: Slot -> value, for values that are known before any sample arrives.
        fixed: Slots whose value is known and does not depend on a float weight.
        weights: Slot -> name of the float initializer it holds.
        captured: Slot of the surrounding scope -> slot here.
    """

    def __init__(self, setting: Setting, parent: Scope | None = None) -> None:
        self.setting = setting
        self.parent = parent
        self.names: list[str] = [""]
        self.kinds: list[Kind | None] = [None]
        self.steps: list[Step] = []
        self.known: dict[int, torch.Tensor] = {}
        self.fixed: set[int] = set()
        self.weights: dict[int, str] = {}
        self.captured: dict[int, int] = {}

    def new(self, name: str, kind: Kind | None) -> int:
        """A new slot."""
        self.names.append(name)
        self.kinds.append(kind)
        return len(self.names) - 1

    def fix(self, slot: int, value: torch.Tensor) -> None:
        """Gives a slot a value that no feed changes."""
        self.known[slot] = value
        self.fixed.add(slot)

    def capture(self, outer: int) -> int:
        """The slot here of a tensor of the surrounding scope."""
        if outer == ABSENT:
            return ABSENT
        if outer not in self.captured:
            parent = self.parent
            if parent is None:
                raise InternalError("a main graph cannot capture tensors")
            slot = self.new(parent.names[outer], parent.kinds[outer])
            self.captured[outer] = slot
            if outer in parent.known:
                self.known[slot] = parent.known[outer]
            if outer in parent.fixed:
                self.fixed.add(slot)
        return self.captured[outer]

    def store(self, value: ir.Value) -> int:
        """The slot of an initializer; float ones are kept by the main graph so that callers can replace them."""
        name, tensor = value.name or "", value.const_value
        if tensor is None:
            raise ModelError(
                f"Initializer '{name}' has no values.",
                remedy="Save the model again together with its external data.",
            )
        kind = tensor.dtype
        if self.parent is not None and is_float(kind):
            return self.capture(self.parent.store(value))
        held = to_torch(tensor.numpy(), kind, self.setting.precision).to(self.setting.device)
        if not is_float(kind):
            slot = self.new(name, kind)
            self.fix(slot, held)
            return slot
        unique, count = name, 1
        while unique in self.setting.weights:
            count += 1
            unique = f"{name}#{count}"
        slot = self.new(unique, kind)
        parameter = torch.nn.Parameter(held, requires_grad=False)
        self.setting.weights[unique] = parameter
        self.weights[slot] = unique
        self.known[slot] = parameter
        return slot


@dataclass
class Frame:
    """Names visible at one point: a graph, or one expansion of a function.

    Attributes:
        scope: Where slots and steps go.
        opsets: Opset version of each domain.
        attributes: Attributes of the call when inside a function.
        outer: The frame around a subgraph, None for main graphs and functions.
        prefix: Put before tensor names inside functions.
        depth: Nesting so far.
        bindings: Value -> slot.
    """

    scope: Scope
    opsets: Mapping[str, int]
    attributes: Mapping[str, ir.Attr]
    outer: Frame | None = None
    prefix: str = ""
    depth: int = 0
    bindings: dict[ir.Value, int] = field(default_factory=dict)

    def slot(self, value: ir.Value | None) -> int:
        """The slot of a value, captured from a surrounding graph if need be.

        Raises:
            ModelError: If nothing defines the value.
        """
        if value is None or (value.name == "" and value not in self.bindings):
            return ABSENT
        found = self.bindings.get(value)
        if found is None and self.outer is not None:
            found = self.scope.capture(self.outer.slot(value))
            self.bindings[value] = found
        if found is None:
            raise ModelError(
                f"Tensor '{value.name}' is used but nothing defines it.",
                remedy="Check the model with onnx.checker.",
            )
        return found

    def define(self, value: ir.Value, kind: Kind | None) -> int:
        """A new slot for a value."""
        if not value.name:
            return ABSENT
        slot = self.scope.new(self.prefix + value.name, value.dtype or kind)
        self.bindings[value] = slot
        return slot

    def attribute(self, attribute: ir.Attr) -> ir.Attr | None:
        """An attribute with a reference to a function attribute followed; None if the call does not give it."""
        if not attribute.is_ref():
            return attribute
        return self.attributes.get(attribute.ref_attr_name or "")


def lower_graph(frame: Frame, graph: ir.Graph) -> tuple[list[int], list[int]]:
    """Lowers a graph or subgraph into the frame's scope.

    Args:
        frame: Where to.
        graph: What.

    Returns:
        Slots of the inputs that are no initializers, and of the outputs.
    """
    for value in graph.initializers.values():
        frame.bindings[value] = frame.scope.store(value)
    inputs = [frame.define(value, value.dtype) for value in graph.inputs if value not in frame.bindings]
    lower_nodes(frame, graph)
    return inputs, [frame.slot(value) for value in graph.outputs]


def lower_nodes(frame: Frame, nodes: Any) -> None:
    """Lowers nodes in order.

    Args:
        frame: Where to.
        nodes: Nodes of a graph or function, in execution order.

    Raises:
        ModelError: If functions or subgraphs are nested too deeply.
    """
    if frame.depth > MAX_DEPTH:
        raise ModelError(
            f"Functions and subgraphs are nested more than {MAX_DEPTH} deep.",
            remedy="Inline the model's functions.",
        )
    for node in nodes:
        _lower_node(frame, node)


def _lower_node(frame: Frame, node: ir.Node) -> None:
    scope, setting = frame.scope, frame.scope.setting
    setting.nodes += 1
    domain = "" if node.domain == "ai.onnx" else node.domain
    version = frame.opsets.get(domain) or frame.opsets.get("ai.onnx" if not domain else domain) or 1
    attributes = {
        name: followed
        for name, attribute in node.attributes.items()
        if (followed := frame.attribute(attribute)) is not None
    }
    inputs = [frame.slot(value) for value in node.inputs]
    kinds = tuple(scope.kinds[slot] for slot in inputs)
    label = frame.prefix + (node.name or next((value.name for value in node.outputs if value.name), "") or "")
    own = setting.functions.get((node.domain, node.op_type, node.overload))
    if own is not None:
        _expand(frame, own, node, inputs, attributes, label)
        return
    if not domain and node.op_type == "Constant":
        held, kind = constants.value(attributes, setting.precision, label)
        scope.fix(frame.define(node.outputs[0], kind), held.to(setting.device))
        return
    entry = find(domain, node.op_type, version)
    if entry is None:
        body = standard_function(domain, node.op_type, version, attributes, node, kinds)
        if body is None:
            setting.missing.append(Missing(domain, node.op_type, version, label))
            for value in node.outputs:
                frame.define(value, None)
        else:
            _expand(frame, body, node, inputs, attributes, label)
        return
    bodies = {
        name: _body(frame, attribute.as_graph(), len(inputs), inputs)
        for name, attribute in attributes.items()
        if attribute.type == ir.AttributeType.GRAPH
    }
    arity = len(node.inputs)
    for value, kind in zip(
        node.outputs,
        output_kinds(domain, node.op_type, version, attributes, kinds, len(node.outputs)),
        strict=True,
    ):
        frame.define(value, kind)
    outputs = tuple(frame.bindings.get(value, ABSENT) if value.name else ABSENT for value in node.outputs)
    site = Node(
        op=node.op_type,
        domain=domain,
        name=label,
        version=version,
        attributes=attributes,
        present=tuple(slot != ABSENT for slot in inputs[:arity]),
        wanted=tuple(slot != ABSENT for slot in outputs),
        kinds=kinds,
        output_kinds=tuple(scope.kinds[slot] for slot in outputs),
        constants=tuple(scope.known.get(slot) for slot in inputs[:arity]),
        bodies=bodies,
        precision=setting.precision,
        device=setting.device,
        consumers=_consumers(node),
        seed=setting.seed + setting.nodes,
    )
    step = Step(node.op_type, label, entry.build(site), tuple(inputs), outputs)
    if entry.pure and not bodies and _fold(scope, step):
        return
    scope.steps.append(step)


def _consumers(node: ir.Node) -> frozenset[str]:
    """Operators that read a node's outputs, looking through those that hand values on unchanged."""
    found: set[str] = set()
    waiting, seen = list(node.outputs), set(node.outputs)
    while waiting:
        for user, _ in waiting.pop().uses():
            found.add(user.op_type)
            if user.op_type in {"Cast", "CastLike", "Identity"}:
                fresh = [value for value in user.outputs if value not in seen]
                seen.update(fresh)
                waiting.extend(fresh)
    return frozenset(found)


def _fold(scope: Scope, step: Step) -> bool:
    """Computes a step ahead if its arguments are known; True if it need not be run again."""
    present = [slot for slot in step.inputs if slot != ABSENT]
    if not all(slot in scope.known for slot in present):
        return False
    fixed = all(slot in scope.fixed for slot in present)
    if not fixed and any(scope.known[slot].numel() > SMALL for slot in present):
        return False
    slots: list[Any] = [None] * len(scope.names)
    for slot in present:
        slots[slot] = scope.known[slot]
    with torch.no_grad():
        execute(schedule([step], step.outputs), slots)
    made = [slot for slot in step.outputs if slot != ABSENT]
    if not all(isinstance(slots[slot], torch.Tensor) for slot in made):
        return False
    for slot in made:
        value = slots[slot]
        if fixed:
            scope.fix(slot, value)
        elif value.numel() <= SMALL:
            scope.known[slot] = value
    return fixed


def _expand(
    frame: Frame,
    function: ir.Function,
    node: ir.Node,
    inputs: Sequence[int],
    attributes: Mapping[str, ir.Attr],
    label: str,
) -> None:
    given = {
        name: attribute for name, attribute in function.attributes.items() if attribute.value is not None
    }
    inner = Frame(
        scope=frame.scope,
        opsets=function.opset_imports,
        attributes={**given, **attributes},
        prefix=f"{label}/",
        depth=frame.depth + 1,
    )
    for index, value in enumerate(function.inputs):
        inner.bindings[value] = inputs[index] if index < len(inputs) else ABSENT
    lower_nodes(inner, function)
    for outer_value, inner_value in zip(node.outputs, function.outputs, strict=False):
        if not outer_value.name:
            continue
        slot = inner.slot(inner_value)
        name = frame.prefix + outer_value.name
        if slot in frame.scope.known or frame.scope.names[slot] == name or slot in inputs:
            # The function hands an argument or a constant through: name it by an identity step.
            target = frame.define(outer_value, frame.scope.kinds[slot])
            frame.scope.steps.append(Step("Identity", label, _identity, (slot,), (target,)))
            if slot in frame.scope.known:
                frame.scope.known[target] = frame.scope.known[slot]
        else:
            frame.scope.names[slot] = name
            frame.scope.kinds[slot] = frame.scope.kinds[slot] or outer_value.dtype
            frame.bindings[outer_value] = slot


def _identity(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


@dataclass(frozen=True)
class LoweredBody:
    """A subgraph ready to run; see `node.Body`."""

    plan: Schedule
    size: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kinds: tuple[Kind | None, ...]
    shapes: tuple[tuple[int | str | None, ...] | None, ...]
    fixed: tuple[tuple[int, torch.Tensor], ...]
    captured: tuple[tuple[int, int], ...]

    def __call__(self, values: Sequence[torch.Tensor | None], arguments: Sequence[Any]) -> tuple[Any, ...]:
        slots: list[Any] = [None] * self.size
        for slot, tensor in self.fixed:
            slots[slot] = tensor
        for slot, position in self.captured:
            slots[slot] = arguments[position]
        for slot, value in zip(self.inputs, values, strict=True):
            slots[slot] = value
        execute(self.plan, slots)
        return tuple(slots[slot] for slot in self.outputs)


def _dims(shape: ir.Shape | None) -> tuple[int | str | None, ...] | None:
    return None if shape is None else tuple(size if isinstance(size, int) else size.value for size in shape)


def _body(frame: Frame, graph: ir.Graph, arity: int, arguments: list[int]) -> LoweredBody:
    """Lowers a subgraph; tensors it captures are appended to the node's `arguments`."""
    scope = Scope(frame.scope.setting, frame.scope)
    inner = Frame(
        scope=scope,
        opsets=frame.opsets,
        attributes=frame.attributes,
        outer=frame,
        prefix=frame.prefix,
        depth=frame.depth + 1,
    )
    inputs, outputs = lower_graph(inner, graph)
    captured = []
    for outer, slot in scope.captured.items():
        if outer not in arguments[arity:]:
            arguments.append(outer)
        captured.append((slot, arguments.index(outer, arity)))
    outside = set(scope.captured.values())
    return LoweredBody(
        plan=schedule(scope.steps, outputs),
        size=len(scope.names),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        kinds=tuple(scope.kinds[slot] for slot in outputs),
        shapes=tuple(_dims(value.shape) for value in graph.outputs),
        fixed=tuple((slot, scope.known[slot]) for slot in scope.fixed if slot not in outside),
        captured=tuple(captured),
    )
