"""Which uploads are being received: a client that comes back takes over from its own dead connection."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class TakenOverError(Exception):
    """A later request goes on with the upload."""


class Transfers:
    """At most one transfer for each name; the newest wins."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], asyncio.Task[Any]] = {}

    async def run(self, name: tuple[str, str], work: Coroutine[Any, Any, T]) -> T:
        """Receive an upload, after stopping whoever received it before.

        Args:
            name: Owner and id.
            work: Receives it.

        Returns:
            What the work gives.

        Raises:
            TakenOverError: If a later request took over.
            asyncio.CancelledError: If the request itself ends.
        """
        await self.stop(name)
        task = asyncio.ensure_future(work)
        self._running[name] = task
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
        finally:
            if self._running.get(name) is task:
                del self._running[name]
        if task.cancelled():
            raise TakenOverError
        return task.result()

    async def stop(self, name: tuple[str, str]) -> None:
        """Stop a transfer and wait until it has written what it had.

        Args:
            name: Owner and id.
        """
        while (task := self._running.get(name)) is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})
