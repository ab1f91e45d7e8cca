"""Work that runs out of memory, tried again with less at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from quant_core.errors import MemoryLimitError
from quant_core.ingest.layer import Layer
from quant_core.processors.heap import says_no_memory
from quant_core.sensitivity.cut import Cut

T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error, or what caused it, is a failed allocation.

    Args:
        error: The error.

    Returns:
        Whether it is.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(cause, RuntimeError) and says_no_memory(cause):
            return True
        cause = cause.__cause__
    return False


def with_less_at_a_time(
    attempt: Callable[[Cut, Sequence[Layer]], T],
    cut: Cut,
    layers: Sequence[Layer],
    join: Callable[[Sequence[T]], T] | None = None,
) -> T:
    """Try work with batches of half the size each time that memory runs out, then with half of the layers at a time.

    Args:
        attempt: The work, for some layers, with the samples cut in some way. It starts from the beginning each time.
        cut: How the samples are cut at first.
        layers: All layers.
        join: Puts the results of groups of layers together, or None where layers cannot be taken apart.

    Returns:
        What the work gave.

    Raises:
        MemoryLimitError: If one sample and one layer are still too much.
        BaseException: What else the work raises.
    """
    while True:
        try:
            return attempt(cut, layers)
        except BaseException as error:
            if not is_out_of_memory(error):
                raise
            told = str(error)
        # Only here, past the handler, is the failed attempt's memory free.
        _let_go()
        smaller = cut.halved()
        if smaller is None:
            break
        cut = smaller
    if join is None or len(layers) == 1:
        raise MemoryLimitError(
            f"memory ran out with a batch of {cut.size}, the smallest there is. {told}",
            remedy="Run it where there is more memory, or give smaller samples.",
            where=layers[0].name if len(layers) == 1 else None,
        )
    middle = len(layers) // 2
    return join(
        [with_less_at_a_time(attempt, cut, part, join) for part in (layers[:middle], layers[middle:])]
    )


def _let_go() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
