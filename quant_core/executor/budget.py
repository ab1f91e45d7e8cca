"""How much one evaluation may allocate and compute: known before an operator runs, refused before memory is taken.

A file of a few bytes can ask for any amount: `ConstantOfShape([10**12])`, a padding of 10**9, a loop without an end.
Real models do not: their largest tensor and their work grow with weights W and inputs F (counts of elements), so both
limits do too, above a floor that small models never meet.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

STEP = 1 << 20
"""Work of calling any operator at all: what a processor multiplies in the time that a call takes."""

CALL = 1 << 16
"""The same for one operation of torch within a kernel."""


@dataclass(frozen=True)
class Limits:
    """What one evaluation may ask for.

    With W elements of weights and F elements of inputs, a tensor may have
    max(elements, 512 sqrt(W F), 1024 F) elements, and all operators together may cost max(work, 16 W F)
    multiply-adds or elements written. A call of an operator costs at least `STEP`.

    Attributes:
        elements: Elements that any one tensor may have, however small the model.
        work: Work that any evaluation may cost, however small the model.
    """

    elements: int = 1 << 26
    work: int = 1 << 35

    def budget(self, weights: int, inputs: int) -> Budget:
        """The budget of one evaluation.

        Args:
            weights: Elements of all stored tensors.
            inputs: Elements of all tensors that are fed.

        Returns:
            The budget.
        """
        elements = max(self.elements, 512 * math.isqrt(weights * inputs), 1024 * inputs)
        return Budget(elements, max(self.work, 16 * weights * inputs))


class ExhaustedError(Exception):
    """An operator asks for more than is allowed; turned into an error that names the node."""


class Budget:
    """What is left for one evaluation.

    Attributes:
        elements: Elements that any one tensor may have.
        work: Work that is left.
        exceeded: Whether anything was refused.
    """

    __slots__ = ("elements", "exceeded", "work")

    def __init__(self, elements: int, work: int) -> None:
        self.elements = elements
        self.work = work
        self.exceeded = False

    def claim(self, elements: float) -> None:
        """Asks for one tensor.

        Args:
            elements: How many elements it will have.

        Raises:
            ExhaustedError: If it is too large.
        """
        if elements > self.elements:
            self.exceeded = True
            raise ExhaustedError(
                f"a tensor of {elements:.3g} elements is needed; {self.elements} are allowed"
            )

    def spend(self, work: int) -> None:
        """Asks for work.

        Args:
            work: Multiply-adds or elements written.

        Raises:
            ExhaustedError: If too little is left.
        """
        self.work -= work
        if self.work < 0:
            self.exceeded = True
            raise ExhaustedError("the model asks for more work than models of its size and inputs need")


_CURRENT: ContextVar[Budget | None] = ContextVar("budget", default=None)


@contextmanager
def within(budget: Budget) -> Iterator[Budget]:
    """Makes a budget the current one.

    Args:
        budget: The budget.

    Yields:
        The same budget.
    """
    token = _CURRENT.set(budget)
    try:
        yield budget
    finally:
        _CURRENT.reset(token)


def current() -> Budget | None:
    """The budget of the evaluation that is running, or None outside of one."""
    return _CURRENT.get()


def claim(elements: float) -> None:
    """Asks for memory that torch does not allocate, such as a numpy table or a list of results.

    Args:
        elements: How many elements will be held.
    """
    budget = _CURRENT.get()
    if budget is not None:
        budget.claim(elements)
