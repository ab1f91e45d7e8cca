"""Turns an ONNX graph into a flat list of kernel calls over numbered slots.

Functions, those of the model and those the standard defines operators by, are expanded in place. Everything that
depends on stored integers alone is computed here, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch

from quant_core.errors import BitwrightError, ModelError
from quant_core.executor import constants
from quant_core.executor.body import LoweredBody
from quant_core.executor.budget import Budget, within
from quant_core.executor.dtypes import is_float
from quant_core.executor.functions import standard_function
from quant_core.executor.kinds import output_kinds
from quant_core.executor.node import Node, Placement
from quant_core.executor.placement import place
from quant_core.executor.registry import find
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


def _lower_node(frame: Frame, node: ir.Node) -> None:
    scope, setting = frame.scope, frame.scope.setting
    setting.nodes += 1
    if setting.nodes > MAX_NODES:
        raise ModelError(
            f"The model has more than {MAX_NODES} nodes with its functions expanded.",
            remedy="Give a part of the model.",
        )
    domain = "" if node.domain == "ai.onnx" else node.domain
    version = frame.opsets.get(domain) or frame.opsets.get(domain or "ai.onnx") or 1
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
        _expand(frame, own, node, inputs, attributes, label, frame.inside)
        return
    if not domain and node.op_type == "Constant":
        held, kind = constants.value(attributes, setting.precision, label)
        if held.numel() > 1 and is_float(kind) and not frame.inside:
            # Some exporters keep weights in Constant nodes; they are weights all the same.
            frame.bindings[node.outputs[0]] = scope.store(
                frame.prefix + (node.outputs[0].name or ""), held, kind
            )
        else:
            scope.fix(frame.define(node.outputs[0], kind), held)
        return
    entry = find(domain, node.op_type, version)
    if entry is None:
        body = standard_function(domain, node.op_type, version, attributes, node, kinds)
        if body is None:
            setting.missing.append(Missing(domain, node.op_type, version, label))
            for value in node.outputs:
                frame.define(value, None)
        else:
            _expand(frame, body, node, inputs, attributes, label, True)
        return
    bodies = {
        name: _body(frame, attribute.as_graph(), len(inputs), inputs)
        for name, attribute in attributes.items()
        if attribute.type == ir.AttributeType.GRAPH
    }
    arity = len(node.inputs)
    made = output_kinds(domain, node.op_type, version, attributes, kinds, len(node.outputs))
    for value, found in zip(node.outputs, made, strict=True):
        frame.define(value, found)
    outputs = tuple(frame.bindings.get(value, ABSENT) if value.name else ABSENT for value in node.outputs)
    # While constants are worked out ahead everything is on the host.
    placement = Placement(torch.device("cpu"))
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
        placement=placement,
        held=tuple(scope.held(slot) for slot in inputs[:arity]),
        consumers=_consumers(node),
        seed=setting.seed + setting.nodes,
    )
    kernel = entry.build(site)
    step = Step(node.op_type, label, kernel, tuple(inputs), outputs, placement, frozenset(site.host_inputs))
    if entry.pure and not bodies and _fold(scope, step):
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


def _expand(
    frame: Frame,
    function: ir.Function,
    node: ir.Node,
    inputs: Sequence[int],
    attributes: Mapping[str, ir.Attr],
    label: str,
    inside: bool,
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
        inside=inside,
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
            where = Placement(frame.scope.setting.device)
            frame.scope.steps.append(Step("Identity", label, _identity, (slot,), (target,), where))
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
