"""One kernel call of a compiled program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from quant_core.executor.node import Placement
from quant_core.executor.registry import Kernel

ABSENT = 0
"""The slot of an optional input that is not there, and of an output nobody names; always empty."""


@dataclass(frozen=True)
class Step:
    """One kernel call.

    Attributes:
        op: Operator type.
        node: Node name, for messages.
        kernel: What to call.
        inputs: Slot of each argument.
        outputs: Slot of each result.
        placement: Where the kernel makes new tensors.
        host_inputs: Positions of arguments that the kernel reads as Python numbers.
        moves: Positions of arguments that lie on the host and have to be moved to the device first.
        costs: Work by the sizes of the arguments, filled as they occur.
    """

    op: str
    node: str
    kernel: Kernel
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    placement: Placement
    host_inputs: frozenset[int] = frozenset()
    moves: tuple[int, ...] = ()
    costs: dict[Any, int] = field(default_factory=dict, compare=False, repr=False)
