"""A compiled graph: evaluates any tensors from any others, differentiably."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch

from quant_core.errors import ModelError, SamplesError
from quant_core.executor.budget import Limits, within
from quant_core.executor.dtypes import Kind, Precision, is_float
from quant_core.executor.placement import place
from quant_core.executor.schedule import Schedule, execute, schedule
from quant_core.executor.scope import Scope
from quant_core.executor.step import ABSENT

_REMEMBERED = 1024


class Program(torch.nn.Module):
    """An ONNX graph as a torch module; made by `compile_model`.

    Weights are shared with the model's memory and must not be written to in place; pass `weights` to `evaluate`
    instead. Tensors are freed after their last use. Gradients flow through feeds, weights and replacements.

    Attributes:
        inputs: Names of the graph inputs that are no initializers.
        outputs: Names of the graph outputs.
        input_kinds: ONNX element type of each input.
        output_kinds: ONNX element type of each output, None where the graph does not say.
        order: Names of all node outputs in execution order.
        rounds: Whether the model, run as it is, rounds interior tensors to 16 bits.
        precision: Which torch type computes each ONNX type.
        device: Where the program runs.
        limits: What one evaluation may ask for.
    """

    def __init__(
        self,
        scope: Scope,
        inputs: list[int],
        outputs: list[int],
        output_names: tuple[str, ...],
        limits: Limits,
    ) -> None:
        super().__init__()
        self.limits = limits
        self.inputs = tuple(scope.names[slot] for slot in inputs)
        self.input_kinds = tuple(scope.kinds[slot] for slot in inputs)
        self.outputs = output_names
        self.output_kinds = tuple(scope.kinds[slot] for slot in outputs)
        self.rounds = not {Kind.FLOAT16, Kind.BFLOAT16}.isdisjoint(scope.kinds)
        self.precision: Precision = scope.setting.precision
        self.device = scope.setting.device
        self.initializers = torch.nn.Module()
        placed = place(scope.steps, {slot: scope.known[slot] for slot in scope.fixed}, self.device)
        self._steps = placed.steps
        self._host = placed.host
        self._names = tuple(scope.names)
        self._slots = {name: slot for slot, name in reversed(list(enumerate(scope.names))) if slot != ABSENT}
        self._slots.update(zip(output_names, outputs, strict=True))
        self._kinds = tuple(scope.kinds)
        self._constants = dict(placed.constants)
        self._weight_keys = self._register(scope)
        self._weight_names = {scope.weights[slot]: key for slot, key in self._weight_keys.items()}
        self._stored = sum(tensor.numel() for tensor in scope.setting.weights.values())
        self._stored += sum(tensor.numel() for tensor in self._constants.values())
        self.order = tuple(
            dict.fromkeys(
                self._names[slot] for step in self._steps for slot in step.outputs if slot != ABSENT
            )
        )
        self._plans: dict[tuple[Any, ...], Schedule] = {}

    def _register(self, scope: Scope) -> dict[int, str]:
        keys = {}
        for slot, name in scope.weights.items():
            # Module attributes may hold no dots and must not hide those every module has.
            key = name.replace(".", "/")
            while not key or key in self.initializers._parameters or hasattr(type(self.initializers), key):
                key += "_"
            self.initializers._parameters[key] = scope.setting.weights[name]  # type: ignore[assignment]
            keys[slot] = key
        return keys

    @property
    def weights(self) -> Mapping[str, torch.Tensor]:
        """Every float initializer by ONNX name, detached from any graph."""
        return _Weights(self.initializers, self._weight_names)

    def _apply(self, fn: Callable[..., torch.Tensor], recurse: bool = True) -> Program:
        probe = torch.zeros(1, dtype=self.precision.carrier(Kind.FLOAT), device=self.device)
        moved = fn(probe)
        if moved.dtype != probe.dtype or moved.device != probe.device:
            raise TypeError(
                "a compiled program stays on its device and in its types; compile the model again"
            )
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Evaluates the graph outputs.

        Args:
            *tensors: One tensor per graph input, in order.

        Returns:
            One tensor per graph output, in order.

        Raises:
            SamplesError: If the number of tensors is not that of the inputs.
        """
        if len(tensors) != len(self.inputs):
            raise SamplesError(
                f"The model has {len(self.inputs)} inputs but {len(tensors)} tensors were given.",
                remedy=f"Give one tensor for each of: {', '.join(self.inputs)}.",
            )
        values = self.evaluate(dict(zip(self.inputs, tensors, strict=True)))
        return tuple(values[name] for name in self.outputs)

    def evaluate(
        self,
        feeds: Mapping[str, torch.Tensor],
        outputs: Collection[str] | None = None,
        weights: Mapping[str, torch.Tensor] | None = None,
        replace: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Evaluates any tensors of the graph.

        Args:
            feeds: Name -> tensor. May name interior tensors: what lies before them is then not computed, and graph
                inputs that nothing else needs may be left out. What nothing reads is not looked at.
            outputs: Names of the tensors to return; the graph outputs if None.
            weights: Name -> tensor used instead of a stored float initializer; same shape.
            replace: Name -> function applied to that tensor as soon as it is known.

        Returns:
            Name -> tensor for every name in `outputs`.

        Raises:
            ModelError: If a name is not in the graph, a weight has another shape, or a node fails or asks for more
                than the limits allow.
            SamplesError: If a graph input that is needed has no feed, or a feed has the wrong type.
        """
        names = self.outputs if outputs is None else tuple(outputs)
        wanted = [self._slot(name) for name in names]
        fed = {self._slot(name): tensor for name, tensor in feeds.items()}
        hooks = {self._slot(name): function for name, function in (replace or {}).items()}
        plan = self._plan(fed, tuple(wanted), hooks)
        slots: list[Any] = [None] * len(self._names)
        for slot in plan.read:
            slots[slot] = self._stored_value(slot)
        for slot in plan.fed:
            slots[slot] = self._admit(slot, fed[slot])
        for name, tensor in (weights or {}).items():
            slot = self._weight_slot(name)
            shape = self.weights[name].shape
            if tensor.shape != shape:
                raise ModelError(
                    f"Weight '{name}' has shape {list(shape)} but {list(tensor.shape)} was given.",
                    remedy="Give a tensor of the same shape.",
                )
            if slot in plan.read:
                slots[slot] = self._cast(tensor, Kind.FLOAT, slot)
        self._require(plan, slots)
        for slot, function in hooks.items():
            if slots[slot] is not None:
                slots[slot] = function(slots[slot])
        given = sum(_elements(value) for value in feeds.values())
        with within(self.limits.budget(self._stored, given)):
            execute(plan, slots, hooks)
        return {name: self._result(slot, slots[slot]) for name, slot in zip(names, wanted, strict=True)}

    def every_tensor(
        self,
        feeds: Mapping[str, torch.Tensor],
        beside: Collection[str] = (),
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Evaluates all that the nodes give, without gradients.

        Args:
            feeds: As `evaluate` takes them.
            beside: Other tensors to return, such as outputs that no node gives.
            weights: As `evaluate` takes them.

        Returns:
            Name -> tensor, the feeds among them; sequences and optionals are left out.
        """
        with torch.no_grad():
            values: dict[str, Any] = self.evaluate(feeds, dict.fromkeys((*self.order, *beside)), weights)
        return {**feeds, **{name: each for name, each in values.items() if isinstance(each, torch.Tensor)}}

    def downstream(self, name: str) -> frozenset[str]:
        """Names of all tensors that depend on a tensor, itself not included.

        Args:
            name: Any tensor of the graph.

        Returns:
            The names.

        Raises:
            ModelError: If the graph has no such tensor.
        """
        reached = {self._slot(name)}
        for step in self._steps:
            if not reached.isdisjoint(step.inputs):
                reached.update(step.outputs)
        return frozenset(self._names[slot] for slot in reached - {self._slot(name), ABSENT})

    def _slot(self, name: str) -> int:
        slot = self._slots.get(name)
        if slot is None:
            raise ModelError(
                f"The graph has no tensor '{name}'.", remedy="Use a tensor name of the model as compiled."
            )
        return slot

    def _result(self, slot: int, value: Any) -> Any:
        """A tensor as the caller should see it: on the device, and of an integer type if the graph says so."""
        if not isinstance(value, torch.Tensor):
            return value
        value = value.to(self.device) if slot in self._host else value
        kind = self._kinds[slot]
        if kind is None or is_float(kind) or not value.is_floating_point():
            return value
        # Quantized tensors travel as integer-valued floats.
        return value.to(self.precision.carrier(kind))

    def _weight_slot(self, name: str) -> int:
        slot = self._slot(name)
        if slot not in self._weight_keys:
            raise ModelError(
                f"'{name}' is not a float initializer.", remedy="Feed other tensors through `feeds`."
            )
        return slot

    def _stored_value(self, slot: int) -> torch.Tensor | None:
        key = self._weight_keys.get(slot)
        return self._constants.get(slot) if key is None else self.initializers._parameters[key]

    def _admit(self, slot: int, tensor: Any) -> Any:
        kind = self._kinds[slot]
        return (
            tensor if kind is None or not isinstance(tensor, torch.Tensor) else self._cast(tensor, kind, slot)
        )

    def _cast(self, tensor: torch.Tensor, kind: Kind, slot: int) -> torch.Tensor:
        carrier = self.precision.carrier(self._kinds[slot] or kind)
        if tensor.dtype != carrier and (
            tensor.is_floating_point() != carrier.is_floating_point
            or tensor.is_complex() != carrier.is_complex
        ):
            raise SamplesError(
                f"'{self._names[slot]}' takes {carrier} but {tensor.dtype} was given.",
                remedy="Convert the values to the type the model declares.",
                where=self._names[slot],
            )
        return tensor.to(device=self.device, dtype=carrier)

    def _plan(self, fed: Collection[int], wanted: tuple[int, ...], hooked: Collection[int]) -> Schedule:
        key = (frozenset(fed), wanted, frozenset(hooked))
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= _REMEMBERED:
                self._plans.clear()
            found = schedule(self._steps, wanted, key[0], key[2])
            self._plans[key] = found
        return found

    def _require(self, plan: Schedule, slots: list[Any]) -> None:
        missing = [self._names[slot] for slot in plan.read if slots[slot] is None]
        if missing:
            raise SamplesError(
                f"No values were given for: {', '.join(sorted(missing))}.",
                remedy="Feed every input the outputs need.",
            )


class _Weights(Mapping[str, torch.Tensor]):
    """Float initializers by ONNX name, as a program holds them at the moment."""

    def __init__(self, held: torch.nn.Module, keys: Mapping[str, str]) -> None:
        self._held = held
        self._keys = keys

    def __getitem__(self, name: str) -> torch.Tensor:
        found: torch.Tensor = self._held._parameters[self._keys[name]]  # type: ignore[assignment]
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _elements(value: Any) -> int:
    """Elements of a tensor, or of all tensors of a sequence."""
    if isinstance(value, (list, tuple)):
        return sum(_elements(item) for item in value)
    return value.numel() if isinstance(value, torch.Tensor) else 0
