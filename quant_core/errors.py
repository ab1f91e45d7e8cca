"""Every error the engine raises on purpose.

BitwrightError
├── UserError                the request cannot be done; `remedy` says what to change
│   ├── ModelError           the model file
│   │   ├── UnsupportedOperatorError
│   │   └── AlreadyQuantizedError
│   ├── SamplesError         the sample file
│   ├── SpecError            the request itself
│   │   └── InfeasibleBudgetError
│   ├── NonFiniteError       a layer gave NaN or infinity
│   └── MemoryLimitError     one sample is more than the memory holds
├── CancelledError                the caller asked to stop
└── InternalError            a promise of our own was broken; please report it
"""

from __future__ import annotations

from collections.abc import Sequence


class BitwrightError(Exception):
    """Base of every error raised on purpose."""

    code = "error"


class UserError(BitwrightError):
    """Something about the input; names the file, layer or field and says what to do.

    Attributes:
        code: A stable machine-readable name of the kind of error.
        message: What is wrong.
        remedy: What to do next.
        where: The file, layer or field concerned, if one can be named.
    """

    code = "user_error"

    def __init__(self, message: str, *, remedy: str, where: str | None = None) -> None:
        super().__init__(message, remedy, where)
        self.message = message
        self.remedy = remedy
        self.where = where

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.message} {self.remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.remedy, self.where))


def _rebuild(kind: type[UserError], message: str, remedy: str, where: str | None) -> UserError:
    return kind(message, remedy=remedy, where=where)


class ModelError(UserError):
    """The model file cannot be used."""

    code = "model"


class UnsupportedOperatorError(ModelError):
    """The graph holds operators the executor does not know; all of them are named at once."""

    code = "unsupported_operator"


class AlreadyQuantizedError(ModelError):
    """The graph already holds quantized weights or quantization operators."""

    code = "already_quantized"


class SamplesError(UserError):
    """The sample file does not fit the graph, or holds values that cannot be used."""

    code = "samples"


class SpecError(UserError):
    """The request contradicts itself or names something that does not exist."""

    code = "spec"


class InfeasibleBudgetError(SpecError):
    """No plan fits the budget; the message gives the smallest reachable value."""

    code = "infeasible_budget"


class NonFiniteError(UserError):
    """A layer produced NaN or infinity."""

    code = "non_finite"


class MemoryLimitError(UserError):
    """Memory ran out although as little as possible was done at a time."""

    code = "out_of_memory"


class CancelledError(BitwrightError):
    """Raised from a progress callback to stop a job between two units of work."""

    code = "cancelled"


class InternalError(BitwrightError):
    """A promise of our own was broken, such as a simulation that onnxruntime contradicts."""

    code = "internal"


def name_some(names: Sequence[object], shown: int) -> str:
    """Name the first of several things in a message, and say how many more there are.

    Args:
        names: What to name.
        shown: How many at most.

    Returns:
        Such as "a, b and 3 more".
    """
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(str, names[:shown])) + more
