"""What an operator's builder is told about its node, and values that are usually known before any sample arrives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
import torch

from quant_core.errors import ModelError
from quant_core.executor.dtypes import Kind, Precision


class Body(Protocol):
    """A subgraph of a control-flow node, ready to run."""

    @property
    def kinds(self) -> tuple[Kind | None, ...]:
        """Element types of the subgraph's outputs where known."""

    @property
    def shapes(self) -> tuple[tuple[int | str | None, ...] | None, ...]:
        """Declared shapes of the subgraph's outputs; None where the graph does not say."""

    def __call__(self, values: Sequence[torch.Tensor | None], arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Runs the subgraph on its own inputs; `arguments` are all arguments the node's kernel received."""


@dataclass
class Placement:
    """Where a node's new tensors go; settled after all nodes are known.

    Attributes:
        device: The device.
    """

    device: torch.device


class HostValue:
    """A small tensor operand wanted as Python numbers, such as the shape of a Reshape.

    Stored operands are read once: the answer is kept for as long as the very same, unmodified tensor comes in, so a
    run never waits for the device. An operand computed during the run is read each time.
    """

    __slots__ = ("_keep", "_seen")

    def __init__(self, constant: torch.Tensor | None, held: torch.Tensor | None = None) -> None:
        self._keep = constant is not None
        self._seen: tuple[torch.Tensor, int, Any] | None = None
        if constant is not None:
            held = constant if held is None else held
            self._seen = (held, held._version, constant.detach().tolist())

    @property
    def known(self) -> bool:
        """Whether the operand is stored in the graph."""
        return self._keep

    @property
    def constant(self) -> Any:
        """The stored operand as nested lists or a number; None if it is not stored."""
        return None if self._seen is None else self._seen[2]

    def read(self, tensor: torch.Tensor) -> Any:
        """The operand as nested lists or a number."""
        seen = self._seen
        if seen is not None and tensor is seen[0] and tensor._version == seen[1]:
            return seen[2]
        value = tensor.detach().tolist()
        if self._keep:
            self._seen = (tensor, tensor._version, value)
        return value

    def stored(self, tensor: torch.Tensor | None) -> Any:
        """The operand if it is the stored, unmodified tensor that nobody differentiates by; else None."""
        seen = self._seen
        if seen is None or tensor is not seen[0] or tensor.requires_grad or tensor._version != seen[1]:
            return None
        return seen[2]

    def list(self, tensor: torch.Tensor) -> list[Any]:
        """The operand as a flat list; a scalar becomes a list of one."""
        value = self.read(tensor)
        return value if isinstance(value, list) else [value]

    def scalar(self, tensor: torch.Tensor) -> Any:
        """The operand as one number; a tensor of one element counts as one number."""
        value = self.read(tensor)
        while isinstance(value, list):
            (value,) = value
        return value


@dataclass(frozen=True)
class Node:
    """A node as its builder sees it.

    Attributes:
        op: Operator type.
        domain: Operator domain; empty for the ONNX standard.
        name: Node name, or the name of its first output.
        version: Opset version of the domain.
        attributes: Attributes with references to function attributes already resolved.
        present: For each input, whether it is there.
        wanted: For each output, whether the graph names it.
        kinds: ONNX element type of each input, None where unknown or absent.
        output_kinds: ONNX element type of each output, None where unknown.
        constants: For each input, its values on the host if it is stored in the graph.
        bodies: Subgraph attributes, ready to run.
        precision: Which torch type computes each ONNX type.
        placement: Where new tensors go.
        held: For each input, the very tensor that a run will hand over if it is stored in the graph.
        consumers: Types of the operators that read any output, casts and copies looked through.
        seed: Seed of this node's random numbers.
        host_inputs: Filled by `host`: inputs that are read as Python numbers.
    """

    op: str
    domain: str
    name: str
    version: int
    attributes: Mapping[str, ir.Attr]
    present: tuple[bool, ...]
    wanted: tuple[bool, ...]
    kinds: tuple[Kind | None, ...]
    output_kinds: tuple[Kind | None, ...]
    constants: tuple[torch.Tensor | None, ...]
    bodies: Mapping[str, Body]
    precision: Precision
    placement: Placement
    held: tuple[torch.Tensor | None, ...] = ()
    consumers: frozenset[str] = frozenset()
    seed: int = 0
    host_inputs: set[int] = field(default_factory=set)

    @property
    def device(self) -> torch.device:
        """Where new tensors go; final once the whole graph is known, so kernels ask when they run."""
        return self.placement.device

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.present) and self.present[index]

    def wants(self, index: int) -> bool:
        """Whether an optional output is used."""
        return index < len(self.wanted) and self.wanted[index]

    def kind(self, index: int) -> Kind | None:
        """ONNX element type of an input, None where unknown."""
        return self.kinds[index] if index < len(self.kinds) else None

    def constant(self, index: int) -> torch.Tensor | None:
        """The tensor of an input that is stored in the graph, else None."""
        return self.constants[index] if index < len(self.constants) else None

    def host(self, index: int) -> HostValue:
        """Declares that the kernel reads an input as Python numbers."""
        self.host_inputs.add(index)
        return HostValue(self.constant(index), self.held[index] if index < len(self.held) else None)

    def carrier(self, kind: Kind | int) -> torch.dtype:
        """The torch type that computes an ONNX element type."""
        return self.precision.carrier(Kind(kind))

    def _value(self, name: str, convert: Callable[[ir.Attr], Any], default: Any) -> Any:
        attribute = self.attributes.get(name)
        if attribute is None:
            return default
        try:
            return convert(attribute)
        except TypeError as error:
            raise ModelError(
                f"Attribute '{name}' of {self.op} has the wrong type: {error}",
                remedy="Check the model with onnx.checker.",
                where=self.name,
            ) from error

    def int(self, name: str, default: Any = None) -> Any:
        """An integer attribute."""
        return self._value(name, ir.Attr.as_int, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """An integer attribute used as a flag."""
        return bool(self._value(name, ir.Attr.as_int, default))

    def float(self, name: str, default: Any = None) -> Any:
        """A float attribute."""
        return self._value(name, ir.Attr.as_float, default)

    def string(self, name: str, default: Any = None) -> Any:
        """A string attribute."""
        return self._value(name, ir.Attr.as_string, default)

    def ints(self, name: str, default: Any = None) -> Any:
        """A tuple of integers, or the default."""
        return self._value(name, lambda attribute: tuple(attribute.as_ints()), default)

    def floats(self, name: str, default: Any = None) -> Any:
        """A tuple of floats, or the default."""
        return self._value(name, lambda attribute: tuple(attribute.as_floats()), default)

    def strings(self, name: str, default: Any = None) -> Any:
        """A tuple of strings, or the default."""
        return self._value(name, lambda attribute: tuple(attribute.as_strings()), default)

    def tensor(self, name: str) -> tuple[np.ndarray, Kind] | None:
        """A tensor attribute as values and declared element type, or None."""
        attribute = self.attributes.get(name)
        if attribute is None:
            return None
        tensor = attribute.as_tensor()
        return tensor.numpy(), tensor.dtype

    def invalid(self, problem: str) -> ModelError:
        """An error that names this node."""
        return ModelError(
            f"{self.op} {problem}",
            remedy="Check the model with onnx.checker, or export it again with a newer exporter.",
            where=self.name,
        )
