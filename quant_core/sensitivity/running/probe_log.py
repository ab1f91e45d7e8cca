"""What was measured so far, written down while an estimate runs, so that a later attempt does not measure it again."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from typing import Protocol

import numpy as np
import numpy.typing as npt

from quant_core.sensitivity.running.assignment import Assignment
from quant_core.sensitivity.running.units import RunUnits, Unit

Found = npt.NDArray[np.float64]

_SHARE = 0.05
"""Time between two writes as a share of the time so far: an hour leaves a hundred small files, not a thousand."""

_VALUES = frozenset({int, float, str, bool, type(None)})


class Once(Protocol):
    """Gives the pieces of a unit, measured only where no earlier attempt did."""

    def __call__(
        self, batch: int, layers: Sequence[int], measure: Callable[[Sequence[int]], Iterable[Found]]
    ) -> Generator[Found, None, None]:
        """Give pieces.

        Args:
            batch: Index of the batch.
            layers: Positions of the layers, one a piece.
            measure: What measures those that are lacking, in their order.

        Returns:
            What was measured, now or earlier, in that order. Closing it early leaves the rest undone.
        """
        ...


def anew(
    batch: int,  # noqa: ARG001
    layers: Sequence[int],
    measure: Callable[[Sequence[int]], Iterable[Found]],
) -> Generator[Found, None, None]:
    """Measure all pieces without writing them down.

    Args:
        batch: Index of the batch.
        layers: Positions of the layers.
        measure: What measures them.

    Yields:
        What it measured.
    """
    yield from measure(layers)


class ProbeLog:
    """Results of units, and of pieces of them, by what they belong to. They are exact, so that their sums are too."""

    def __init__(
        self,
        known: Mapping[str, Found],
        write: Callable[[Mapping[str, Found]], None],
        *,
        seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with what earlier attempts left.

        Args:
            known: What they measured.
            write: Takes what is new now and then.
            seconds: Least time between two writes; what is measured in between is lost with the process.
            clock: Tells the time.
        """
        self._known = known
        self._write = write
        self._seconds = seconds
        self._clock = clock
        self._started = self._written = clock()
        self._new: dict[str, Found] = {}
        self._asked: Counter[str] = Counter()

    @property
    def known(self) -> int:
        """How many results earlier attempts left."""
        return len(self._known)

    def of(self, assignment: Assignment) -> AssignmentLog:
        """Give what belongs to one estimate.

        Args:
            assignment: The estimate; asked for a second time, it is another.

        Returns:
            Its part of the log.
        """
        name = _named(assignment)
        self._asked[name] += 1
        return AssignmentLog(self, f"{name}.{self._asked[name]}")

    def find(self, key: str) -> Found | None:
        """Look for a result of an earlier attempt.

        Args:
            key: Its name.

        Returns:
            The result, or None.
        """
        return self._known.get(key)

    def note(self, key: str, result: Found) -> None:
        """Write a result down, at once or with later ones.

        Args:
            key: Its name.
            result: The result.
        """
        self._new[key] = result
        moment = self._clock()
        if moment - self._written < max(self._seconds, _SHARE * (moment - self._started)):
            return
        self._write(self._new)
        self._new = {}
        self._written = self._clock()


class AssignmentLog:
    """The part of a log that belongs to one estimate."""

    def __init__(self, log: ProbeLog, name: str) -> None:
        self._log = log
        self._name = name

    def once(
        self, batch: int, layers: Sequence[int], measure: Callable[[Sequence[int]], Iterable[Found]]
    ) -> Generator[Found, None, None]:
        """Give the pieces of a unit, measured only where no earlier attempt did.

        Args:
            batch: Index of the batch.
            layers: Positions of the layers, one a piece.
            measure: What measures those that are lacking, in their order.

        Yields:
            What was measured, now or earlier, in that order.
        """
        keys = {layer: f"{self._name}.piece.{batch}.{layer}" for layer in layers}
        known = {layer: self._log.find(key) for layer, key in keys.items()}
        with closing(anew(batch, [layer for layer in layers if known[layer] is None], measure)) as lacking:
            for layer, key in keys.items():
                found = known[layer]
                if found is None:
                    found = next(lacking)
                    self._log.note(key, found)
                yield found

    def around(self, run: RunUnits) -> RunUnits:
        """Work units off, but for those whose results earlier attempts left.

        Args:
            run: Works the others off.

        Returns:
            What does.
        """

        def logged(unit: Unit, order: Iterable[tuple[int, int]]) -> Generator[Found, None, None]:
            rest = iter(order)
            for one in rest:
                found = self._log.find(self._key(one))
                if found is None:
                    rest = chain([one], rest)
                    break
                yield found
            given: deque[tuple[int, int]] = deque()
            with closing(run(unit, _remembered(rest, given))) as results:
                for result in results:
                    self._log.note(self._key(given.popleft()), result)
                    yield result

        return logged

    def _key(self, unit: tuple[int, int]) -> str:
        return f"{self._name}.{unit[0]}.{unit[1]}"


def _remembered(order: Iterable[tuple[int, int]], given: deque[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for one in order:
        given.append(one)
        yield one


def _named(assignment: Assignment) -> str:
    """Name an estimate by all that its units depend on, but for what is the same throughout a job."""
    options = {name: value for name, value in assignment.options.items() if type(value) in _VALUES}
    told = (
        assignment.estimator.__name__,
        [layer.name for layer in assignment.layers],
        assignment.objective.name,
        assignment.cut,
        assignment.cut.size,
        sorted(options.items()),
    )
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
