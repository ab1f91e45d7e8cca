"""Independent pieces of work on a few threads, each computing with its share of the processor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

_MOST = 4
"""Pieces at a time: each holds tensors of its own."""

Item = TypeVar("Item")
Found = TypeVar("Found")


def side_by_side(
    work: Callable[[Item], Found], items: Sequence[Item], device: torch.device | str = "cpu"
) -> Generator[Found, None, None]:
    """Work pieces off, up to four at a time on a processor, and one after the other on a GPU.

    Two runs of a network with one thread each end sooner than one after the other with two, which wait for each other
    behind every operation. It only pays where a piece spends its time in operations of torch: Python runs one thread at
    a time. A piece computes with the same number of threads whichever others run beside it, so that its numbers do not
    depend on them.

    Args:
        work: Does one piece; called from other threads, each with its own `torch.no_grad`.
        items: What to call it with.
        device: Where it computes.

    Yields:
        Results in the order of the items.

    Raises:
        Exception: What a piece raised, when its turn comes; others are then given up.
    """
    threads = torch.get_num_threads()
    count = min(_MOST, threads, len(items))
    if count <= 1 or torch.device(device).type != "cpu":
        yield from map(work, items)
        return
    torch.set_num_threads(threads // count)  # taken over by every thread that starts from now on
    waiting: deque[Future[Found]] = deque()
    pool = ThreadPoolExecutor(count, "bitwright-work")
    try:
        left = iter(items)
        waiting.extend(pool.submit(work, item) for item in islice(left, 2 * count))
        while waiting:
            found = waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(left, 1))
            yield found
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
