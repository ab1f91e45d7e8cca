"""Runs a schedule in segments whose interior tensors are computed again when gradients need them.

Plain backpropagation keeps every activation. With k segments only what crosses from one to the next is kept, and one
segment at a time is computed again: for n equal steps about n/k + k activations instead of n, least at k = sqrt(n), at
the price of one more forward pass (Chen et al. 2016, "Training deep nets with sublinear memory cost").
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from quant_core.executor.schedule import Schedule, execute
from quant_core.executor.step import ABSENT


@dataclass(frozen=True)
class Segment:
    """Consecutive steps of a schedule.

    Attributes:
        plan: The steps.
        reads: Slots that must hold a value before the first step.
        makes: Slots that something after the last step reads.
        frees: Slots that nothing after the last step reads.
    """

    plan: Schedule
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    frees: tuple[int, ...]


def cut(plan: Schedule, count: int, wanted: Collection[int]) -> tuple[Segment, ...]:
    """Cuts a schedule into segments of as many steps each.

    Args:
        plan: The schedule.
        count: Number of segments.
        wanted: Slots the caller asks for.

    Returns:
        The segments in order.
    """
    total = len(plan.steps)
    edges = [round(index * total / count) for index in range(count + 1)]
    needed = set(wanted)
    made: list[Segment] = []
    for start, stop in reversed(list(pairwise(edges))):
        steps = plan.steps[start:stop]
        written = {slot for step in steps for slot in step.outputs}
        read: set[int] = set()
        known: set[int] = set()
        for step in steps:
            read.update(slot for slot in step.step.inputs if slot not in known)
            known.update(step.outputs)
        read.discard(ABSENT)
        makes = sorted((written & needed) - {ABSENT})
        frees = {slot for step in steps for slot in step.release}
        needed |= read
        part = Schedule(steps, frozenset(read))
        made.append(Segment(part, tuple(sorted(read)), tuple(makes), tuple(sorted(frees))))
    return tuple(reversed(made))


def execute_segments(
    segments: Collection[Segment],
    slots: list[Any],
    hooks: Mapping[int, Callable[[torch.Tensor], torch.Tensor]],
) -> None:
    """Runs segments over a table of values, in place.

    Args:
        segments: What to run.
        slots: One entry per slot; after each segment it holds what later ones read.
        hooks: Slot -> function applied to its value as soon as it is known; called again when it is computed again.
    """
    for segment in segments:
        values = [slots[slot] for slot in segment.reads]
        results = checkpoint(
            _Run(segment, len(slots), hooks),
            *values,
            use_reentrant=False,
            preserve_rng_state=False,
            determinism_check="none",
        )
        for slot in segment.frees:
            slots[slot] = None
        for slot, value in zip(segment.makes, results, strict=True):
            slots[slot] = value


@dataclass(frozen=True)
class _Run:
    segment: Segment
    size: int
    hooks: Mapping[int, Callable[[torch.Tensor], torch.Tensor]]

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        slots: list[Any] = [None] * self.size
        for slot, value in zip(self.segment.reads, values, strict=True):
            slots[slot] = value
        execute(self.segment.plan, slots, self.hooks)
        return tuple(slots[slot] for slot in self.segment.makes)
