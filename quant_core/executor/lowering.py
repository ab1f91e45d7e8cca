"""Turns an ONNX graph into a flat list of kernel calls over numbered slots.

Functions, those of the model and those the standard defines operators by, are expanded in place. Everything that
depends on stored integers alone is computed here, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch

from quant_core.errors import BitwrightError, ModelError
from quant_core.executor import constants
from quant_core.executor.body import LoweredBody
from quant_core.executor.budget import Budget, within
from quant_core.executor.dtypes import Kind, is_float
from quant_core.executor.functions import standard_function
from quant_core.executor.kinds import output_kinds
from quant_core.executor.node import Node, Placement
from quant_core.executor.placement import place
from quant_core.executor.registry import Operator, find
from quant_core.executor.schedule import execute, schedule
from quant_core.executor.scope import Frame, Missing, Scope
from quant_core.executor.step import ABSENT, Step
from quant_core.spec.limits import MAX_NODES

MAX_DEPTH = 64
"""Nested functions and subgraphs allowed before a model is refused."""

SMALL = 64
"""Elements up to which a value that depends on float weights is also worked out ahead, for operands such as scales."""

LARGE = 1 << 20
"""Elements above which a value is not worked out ahead unless its operands are as large."""

AHEAD = 1 << 28
"""Work above which a value is not worked out ahead."""


def lower_graph(frame: Frame, graph: ir.Graph) -> tuple[list[int], list[int]]:
    """Lowers a graph or subgraph into the frame's scope.

    Args:
        frame: Where to.
        graph: What.

    Returns:
        Slots of the inputs that are no initializers, and of the outputs.
    """
    for value in graph.initializers.values():
        frame.bindings[value] = frame.scope.initializer(value)
    inputs = [frame.define(value, value.dtype) for value in graph.inputs if value not in frame.bindings]
    lower_nodes(frame, graph)
    return inputs, [frame.slot(value) for value in graph.outputs]


def lower_nodes(frame: Frame, nodes: Any) -> None:
    """Lowers nodes in order.

    Args:
        frame: Where to.
        nodes: Nodes of a graph or function, in execution order.

    Raises:
        ModelError: If functions or subgraphs are nested too deeply, or a node is not valid.
        BitwrightError: If a builder raises one on purpose.
        RecursionError: If Python's own limit is met first.
        MemoryError: If constants do not fit.
    """
    if frame.depth > MAX_DEPTH:
        raise ModelError(
            f"Functions and subgraphs are nested more than {MAX_DEPTH} deep.",
            remedy="Inline the model's functions.",
        )
    for node in nodes:
        try:
            _lower_node(frame, node)
        except (BitwrightError, RecursionError, MemoryError):
            raise
        except Exception as error:
            # A builder met attributes or constants that the standard does not allow.
            raise ModelError(
                f"{node.op_type} is not valid: {error!r}",
                remedy="Check the model with onnx.checker, or export it again with a newer exporter.",
                where=node.name or next((value.name for value in node.outputs if value.name), None),
            ) from error


@dataclass(frozen=True, eq=False)
class _Call:
    """A node as a frame reads it.

    Attributes:
        node: The node.
        domain: Domain of its operator, empty for the standard's.
        version: Opset version that holds for it.
        attributes: Its attributes, those followed that refer to a function's.
        inputs: Slots of what it reads.
        kinds: Their kinds.
        label: Its name with those of the functions around it.
    """

    node: ir.Node
    domain: str
    version: int
    attributes: Mapping[str, ir.Attr]
    inputs: tuple[int, ...]
    kinds: tuple[Kind | None, ...]
    label: str

    @classmethod
    def of(cls, frame: Frame, node: ir.Node) -> _Call:
        domain = "" if node.domain == "ai.onnx" else node.domain
        attributes = {
            name: followed
            for name, attribute in node.attributes.items()
            if (followed := frame.attribute(attribute)) is not None
        }
        inputs = tuple(frame.slot(value) for value in node.inputs)
        name = node.name or next((value.name for value in node.outputs if value.name), "") or ""
        return cls(
            node=node,
            domain=domain,
            version=frame.opsets.get(domain) or frame.opsets.get(domain or "ai.onnx") or 1,
            attributes=attributes,
            inputs=inputs,
            kinds=tuple(frame.scope.kinds[slot] for slot in inputs),
            label=frame.prefix + name,
        )


def _lower_node(frame: Frame, node: ir.Node) -> None:
    setting = frame.scope.setting
    setting.nodes += 1
    if setting.nodes > MAX_NODES:
        raise ModelError(
            f"The model has more than {MAX_NODES} nodes with its functions expanded.",
            remedy="Give a part of the model.",
        )
    call = _Call.of(frame, node)
    own = setting.functions.get((node.domain, node.op_type, node.overload))
    if own is not None:
        _expand(frame, own, call, frame.inside)
        return
    if not call.domain and node.op_type == "Constant":
        _lower_constant(frame, call)
        return
    operator = find(call.domain, node.op_type, call.version)
    if operator is not None:
        _lower_operator(frame, call, operator)
        return
    body = standard_function(call.domain, node.op_type, call.version, call.attributes, node, call.kinds)
    if body is not None:
        _expand(frame, body, call, True)
        return
    setting.missing.append(Missing(call.domain, node.op_type, call.version, call.label))
    for value in node.outputs:
        frame.define(value, None)


def _lower_constant(frame: Frame, call: _Call) -> None:
    scope, value = frame.scope, call.node.outputs[0]
    held, kind = constants.value(call.attributes, scope.setting.precision, call.label)
    if held.numel() > 1 and is_float(kind) and not frame.inside:
        # Some exporters keep weights in Constant nodes; they are weights all the same.
        frame.bindings[value] = scope.store(frame.prefix + (value.name or ""), held, kind)
    else:
        scope.fix(frame.define(value, kind), held)


def _lower_operator(frame: Frame, call: _Call, operator: Operator) -> None:
    """Let an operator's builder give the kernel, and run it at once where what it reads is known."""
    scope, setting, node = frame.scope, frame.scope.setting, call.node
    arguments = list(call.inputs)
    bodies = {
        name: _body(frame, attribute.as_graph(), len(arguments), arguments)
        for name, attribute in call.attributes.items()
        if attribute.type == ir.AttributeType.GRAPH
    }
    made = output_kinds(
        call.domain, node.op_type, call.version, call.attributes, call.kinds, len(node.outputs)
    )
    for value, found in zip(node.outputs, made, strict=True):
        frame.define(value, found)
    outputs = tuple(frame.bindings.get(value, ABSENT) if value.name else ABSENT for value in node.outputs)
    # While constants are worked out ahead everything is on the host.
    placement = Placement(torch.device("cpu"))
    site = Node(
        op=node.op_type,
        domain=call.domain,
        name=call.label,
        version=call.version,
        attributes=call.attributes,
        present=tuple(slot != ABSENT for slot in call.inputs),
        wanted=tuple(slot != ABSENT for slot in outputs),
        kinds=call.kinds,
        output_kinds=tuple(scope.kinds[slot] for slot in outputs),
        constants=tuple(scope.known.get(slot) for slot in call.inputs),
        bodies=bodies,
        precision=setting.precision,
        placement=placement,
        held=tuple(scope.held(slot) for slot in call.inputs),
        consumers=_consumers(node),
        seed=setting.seed + setting.nodes,
    )
    kernel = operator.build(site)
    step = Step(
        node.op_type, call.label, kernel, tuple(arguments), outputs, placement, frozenset(site.host_inputs)
    )
    if operator.pure and not bodies and _fold(scope, step):
        return
    placement.device = setting.device
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
    given = sum(scope.known[slot].numel() for slot in present)
    with torch.no_grad(), within(Budget(max(LARGE, given), AHEAD)) as budget:
        try:
            execute(schedule([step], step.outputs), slots)
        except ModelError:
            if budget.exceeded:
                return False
            raise
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


def _expand(frame: Frame, function: ir.Function, call: _Call, inside: bool) -> None:
    given = {
        name: attribute for name, attribute in function.attributes.items() if attribute.value is not None
    }
    inner = Frame(
        scope=frame.scope,
        opsets=function.opset_imports,
        attributes={**given, **call.attributes},
        prefix=f"{call.label}/",
        depth=frame.depth + 1,
        inside=inside,
    )
    for index, value in enumerate(function.inputs):
        inner.bindings[value] = call.inputs[index] if index < len(call.inputs) else ABSENT
    lower_nodes(inner, function)
    for outer_value, inner_value in zip(call.node.outputs, function.outputs, strict=False):
        if not outer_value.name:
            continue
        slot = inner.slot(inner_value)
        name = frame.prefix + outer_value.name
        if slot in frame.scope.known or frame.scope.names[slot] == name or slot in call.inputs:
            # The function hands an argument or a constant through: name it by an identity step.
            target = frame.define(outer_value, frame.scope.kinds[slot])
            where = Placement(frame.scope.setting.device)
            frame.scope.steps.append(Step("Identity", call.label, _identity, (slot,), (target,), where))
            if slot in frame.scope.known:
                frame.scope.known[target] = frame.scope.known[slot]
        else:
            frame.scope.names[slot] = name
            frame.scope.kinds[slot] = outer_value.dtype or frame.scope.kinds[slot]
            frame.bindings[outer_value] = slot


def _identity(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


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
        inside=frame.inside,
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
    own = {slot: scope.known[slot] for slot in scope.fixed if slot not in outside}
    placed = place(scope.steps, own, scope.setting.device)
    return LoweredBody(
        plan=schedule(placed.steps, outputs),
        size=len(scope.names),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        kinds=tuple(scope.kinds[slot] for slot in outputs),
        shapes=tuple(_dims(value.shape) for value in graph.outputs),
        fixed=placed.constants,
        host=tuple(slot for slot in outputs if slot in placed.host),
        device=scope.setting.device,
        captured=tuple(captured),
    )
