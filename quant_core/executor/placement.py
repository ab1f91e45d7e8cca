"""Keeps shape arithmetic on the host, so that running on an accelerator never waits for it.

Sizes come out of Shape, pass through a little integer arithmetic and end as the target of a Reshape or the bounds of
a Slice. All of that runs on the CPU; a host value that a device kernel reads as data is moved there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from quant_core.executor.step import ABSENT, Step

_HOST = torch.device("cpu")
_SOURCES = frozenset({"Shape", "Size"})
_ARITHMETIC = frozenset(
    (
        *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "ConstantOfShape", "CumSum", "Div"),
        *("Equal", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Greater"),
        *("GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg"),
        *("NonZero", "Not", "Or", "Pow", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"),
        *("Reshape", "Round", "ScatterElements", "ScatterND", "Sign", "Slice", "Split", "Sqrt"),
        *("Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where", "Xor"),
    )
)


@dataclass(frozen=True)
class Placed:
    """Steps and constants with a place.

    Attributes:
        steps: The steps, each told which arguments to move.
        constants: Slot -> constant, on the device or the host.
        host: Slots whose values are on the host.
    """

    steps: tuple[Step, ...]
    constants: tuple[tuple[int, torch.Tensor], ...]
    host: frozenset[int]


def place(steps: Sequence[Step], constants: Mapping[int, torch.Tensor], device: torch.device) -> Placed:
    """Decides where each step runs and each constant lives.

    Args:
        steps: All steps in execution order.
        constants: Slot -> constant, on the host.
        device: Where everything else runs.

    Returns:
        The steps with their moves, and the constants where they belong.
    """
    if device.type == "cpu":
        return Placed(tuple(steps), tuple(sorted(constants.items())), frozenset())
    runnable = _runnable(steps, constants)
    wanted = _wanted(steps, runnable)
    host = {slot for slot in constants if slot in wanted}
    placed = []
    for step in steps:
        on_host = step.op in _SOURCES or (
            not wanted.isdisjoint(step.outputs) and runnable.issuperset(step.outputs)
        )
        if on_host:
            host.update(step.outputs)
        if on_host and step.op not in _SOURCES:
            step.placement.device = _HOST
            placed.append(step)
            continue
        moves = tuple(
            position
            for position, slot in enumerate(step.inputs)
            if slot in host and position not in step.host_inputs and step.op not in _SOURCES
        )
        placed.append(replace(step, moves=moves))
    host.discard(ABSENT)
    held = tuple(
        (slot, value if slot in host else value.to(device)) for slot, value in sorted(constants.items())
    )
    return Placed(tuple(placed), held, frozenset(host))


def _runnable(steps: Sequence[Step], constants: Collection[int]) -> frozenset[int]:
    """Slots that can be computed on the host from sizes and constants alone."""
    found = {ABSENT, *constants}
    for step in steps:
        if step.op in _SOURCES or (step.op in _ARITHMETIC and found.issuperset(step.inputs)):
            found.update(step.outputs)
    return frozenset(found)


def _wanted(steps: Sequence[Step], runnable: Collection[int]) -> frozenset[int]:
    """Slots that are read as Python numbers, and those they come from."""
    wanted: set[int] = set()
    for step in reversed(steps):
        wanted.update(step.inputs[position] for position in step.host_inputs if position < len(step.inputs))
        ahead = not wanted.isdisjoint(step.outputs) and step.op in _ARITHMETIC
        if ahead and all(slot in runnable for slot in step.outputs):
            wanted.update(step.inputs)
    wanted.discard(ABSENT)
    return frozenset(wanted)
