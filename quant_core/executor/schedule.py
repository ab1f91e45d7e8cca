"""Which steps a request needs, and when each tensor may be forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import forward_ad

from quant_core.errors import BitwrightError, ModelError
from quant_core.executor import budget
from quant_core.executor.guard import admit
from quant_core.executor.registry import Overwriting
from quant_core.executor.step import ABSENT, Step

_NEW = frozenset({"Add", "Conv", "Gemm"})
"""Operators whose result is always a tensor of its own, no view of an argument."""


@dataclass(frozen=True)
class Planned:
    """A step within a schedule.

    Attributes:
        step: The step.
        outputs: Its results' slots, with those that were fed from outside left out.
        hooks: Results to pass through a caller's function.
        release: Slots that nothing later reads.
        overwrites: Whether its result may take the place of its first argument.
    """

    step: Step
    outputs: tuple[int, ...]
    hooks: tuple[int, ...]
    release: tuple[int, ...]
    overwrites: bool = False


@dataclass(frozen=True)
class Schedule:
    """The steps of one request in order.

    Attributes:
        steps: What to run.
        read: Slots that are neither fed nor computed, and read or asked for.
        fed: Slots that are fed, and read or asked for.
    """

    steps: tuple[Planned, ...]
    read: frozenset[int]
    fed: frozenset[int]


def schedule(
    steps: Sequence[Step], wanted: Collection[int], fed: Collection[int] = (), hooked: Collection[int] = ()
) -> Schedule:
    """Keeps the steps that the wanted slots depend on, stopping at slots that are fed from outside.

    Args:
        steps: All steps in execution order.
        wanted: Slots whose values the caller asks for.
        fed: Slots the caller gives a value.
        hooked: Slots whose values pass through a caller's function.

    Returns:
        The schedule.
    """
    needed, given = set(wanted).difference(fed), set(wanted).intersection(fed)
    kept: list[Step] = []
    for step in reversed(steps):
        if needed.isdisjoint(step.outputs):
            continue
        kept.append(step)
        needed.difference_update(step.outputs)
        for slot in step.inputs:
            (given if slot in fed else needed).add(slot)
    needed.discard(ABSENT)
    planned: list[Planned] = []
    alive = set(wanted)
    made_anew = {slot for step in kept if step.op in _NEW for slot in step.outputs} - set(hooked)
    readers = Counter(slot for step in kept for slot in step.inputs)
    for step in kept:
        outputs = tuple(ABSENT if slot in fed else slot for slot in step.outputs)
        release = {slot for slot in (*step.inputs, *outputs) if slot not in alive}
        alive.update(step.inputs)
        hooks = tuple(slot for slot in outputs if slot in hooked)
        overwrites = (
            isinstance(step.kernel, Overwriting)
            and step.inputs[0] in release & made_anew
            and readers[step.inputs[0]] == 1
        )
        planned.append(Planned(step, outputs, hooks, tuple(release - {ABSENT}), overwrites))
    planned.reverse()
    return Schedule(tuple(planned), frozenset(needed), frozenset(given))


def execute(
    plan: Schedule,
    slots: list[Any],
    hooks: Mapping[int, Callable[[torch.Tensor], torch.Tensor]] | None = None,
) -> None:
    """Runs a schedule over a table of values, in place.

    Args:
        plan: What to run.
        slots: One entry per slot; entries are set as they are computed and cleared after their last use.
        hooks: Slot -> function applied to its value as soon as it is known.

    Raises:
        ModelError: If a kernel fails or asks for more than the current budget holds; names the node.
        BitwrightError: If a kernel or a hook raises one on purpose.
        OutOfMemoryError: If the device has no memory left.
    """
    hooks = hooks or {}
    held = budget.current()
    watched = (
        torch.is_grad_enabled()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )
    for planned in plan.steps:
        step = planned.step
        try:
            arguments = [slots[slot] for slot in step.inputs]
            for position in step.moves:
                if isinstance(arguments[position], torch.Tensor):
                    arguments[position] = arguments[position].to(step.placement.device)
            kernel = step.kernel
            if planned.overwrites and not watched and isinstance(kernel, Overwriting):
                kernel = kernel.over
            result = kernel(*arguments) if held is None else admit(step, kernel, arguments, held)
        except (BitwrightError, torch.OutOfMemoryError):
            raise
        except budget.ExhaustedError as error:
            raise ModelError(
                f"{step.op} is refused: {error}.",
                remedy="Give smaller samples or fewer at once, or check the sizes the node asks for.",
                where=step.node,
            ) from error
        except (
            RuntimeError,
            ValueError,
            IndexError,
            TypeError,
            KeyError,
            AttributeError,
            ArithmeticError,
        ) as error:
            raise ModelError(
                f"{step.op} failed: {error}",
                remedy="Check that the shapes and types of the samples are those the model was made for.",
                where=step.node,
            ) from error
        if type(result) is tuple:
            for slot, value in zip(planned.outputs, result, strict=False):
                slots[slot] = value
            slots[ABSENT] = None
        else:
            slots[planned.outputs[0]] = result
        result = None
        for slot in planned.hooks:
            slots[slot] = hooks[slot](slots[slot])
        for slot in planned.release:
            slots[slot] = None
