"""Slots, names and stored values while a graph is being lowered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir
import torch

from quant_core.errors import InternalError, ModelError
from quant_core.executor.dtypes import Kind, Precision, is_float, to_torch
from quant_core.executor.step import ABSENT, Step


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
        known: Slot -> value on the host, for values that are known before any sample arrives.
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
        """The slot here of a tensor of the surrounding scope.

        Returns:
            The slot; ABSENT stays ABSENT.

        Raises:
            InternalError: If there is no surrounding scope.
        """
        if outer == ABSENT:
            return ABSENT
        if outer not in self.captured:
            parent = self.parent
            if parent is None:
                raise InternalError("a main graph cannot capture tensors")
            if outer in parent.fixed:
                # A constant is known here as well as there and need not be handed over.
                copy = self.new(parent.names[outer], parent.kinds[outer])
                self.fix(copy, parent.known[outer])
                return copy
            slot = self.new(parent.names[outer], parent.kinds[outer])
            self.captured[outer] = slot
            if outer in parent.known:
                self.known[slot] = parent.known[outer]
        return self.captured[outer]

    def store(self, name: str, values: torch.Tensor, kind: Kind) -> int:
        """A new slot for stored values; float ones are kept by the main graph so that callers can replace them."""
        if not is_float(kind):
            slot = self.new(name, kind)
            self.fix(slot, values)
            return slot
        if self.parent is not None:
            return self.capture(self.parent.store(name, values, kind))
        unique, count = name, 1
        while unique in self.setting.weights:
            count += 1
            unique = f"{name}#{count}"
        slot = self.new(unique, kind)
        self.setting.weights[unique] = torch.nn.Parameter(values.to(self.setting.device), requires_grad=False)
        self.weights[slot] = unique
        self.known[slot] = values
        return slot

    def initializer(self, value: ir.Value) -> int:
        """The slot of an initializer.

        Returns:
            The slot.

        Raises:
            ModelError: If the initializer has no values, or they cannot be read.
            MemoryError: If there is no memory for them.
        """
        name, tensor = value.name or "", value.const_value
        if tensor is None:
            raise ModelError(
                f"Initializer '{name}' has no values.",
                remedy="Save the model again together with its external data.",
            )
        try:
            array = tensor.numpy()
        except MemoryError:
            raise
        except Exception as error:
            # The reader trusts the file: what is wrong with it shows up in many ways.
            raise ModelError(
                f"Initializer '{name}' cannot be read: {error}",
                remedy="Save the model again together with its external data.",
            ) from error
        return self.store(name, to_torch(array, tensor.dtype, self.setting.precision), tensor.dtype)

    def held(self, slot: int) -> torch.Tensor | None:
        """The very tensor a run will find in a slot that is stored in the graph, else None."""
        name = self.weights.get(slot)
        if name is not None:
            return self.setting.weights[name]
        return self.known[slot] if slot in self.fixed else None


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
        inside: Whether this is the body of an operator of the standard, whose constants are no weights.
        bindings: Value -> slot.
    """

    scope: Scope
    opsets: Mapping[str, int]
    attributes: Mapping[str, ir.Attr]
    outer: Frame | None = None
    prefix: str = ""
    depth: int = 0
    inside: bool = False
    bindings: dict[ir.Value, int] = field(default_factory=dict)

    def slot(self, value: ir.Value | None) -> int:
        """The slot of a value, captured from a surrounding graph if need be.

        Returns:
            The slot; ABSENT for an optional input that is not there.

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
