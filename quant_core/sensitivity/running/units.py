"""Units of work: independent pieces of an estimate, worked off anywhere and added up in their order."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Protocol

import numpy as np
import numpy.typing as npt

Unit = Callable[[int, int], npt.NDArray[np.float64]]
"""Index of a batch and number of the unit -> what the unit adds to an estimate. The same wherever it runs."""


class RunUnits(Protocol):
    """Works units off."""

    def __call__(
        self, unit: Unit, order: Iterable[tuple[int, int]]
    ) -> Generator[npt.NDArray[np.float64], None, None]:
        """Work units off, possibly several at a time.

        Args:
            unit: The piece of work.
            order: Its arguments, one pair a unit; may be endless.

        Returns:
            Results in that order, however fast each came. Closing it early leaves the rest undone.
        """
        ...


def in_turn(unit: Unit, order: Iterable[tuple[int, int]]) -> Generator[npt.NDArray[np.float64], None, None]:
    """Work units off one after the other in this process.

    Args:
        unit: The piece of work.
        order: Its arguments.

    Yields:
        Results in that order.
    """
    for batch, number in order:
        yield unit(batch, number)


def within(seconds: float, run: RunUnits = in_turn) -> RunUnits:
    """Work units off for a limited time.

    Args:
        seconds: When results end, however many there would be; one comes in any case.
        run: Works them off.

    Returns:
        What does.
    """

    def limited(
        unit: Unit, order: Iterable[tuple[int, int]]
    ) -> Generator[npt.NDArray[np.float64], None, None]:
        end = time.monotonic() + seconds
        with closing(run(unit, order)) as results:
            for result in results:
                yield result
                if time.monotonic() >= end:
                    return

    return limited
