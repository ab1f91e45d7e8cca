"""Carries out the steps of operations: the one place where waiting for a service and awaiting it differ."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import httpx

from bitwright.operations.answers import ask
from bitwright.resuming import begin, going_on
from bitwright.steps import Ask, Close, FileBody, Line, Open, Operation, Pause, Save, Send, Step

T = TypeVar("T")


class Connection:
    """Runs operations over a pool of connections; several threads may share it."""

    def __init__(self, client: httpx.Client, *, retries: int) -> None:
        self.retries = retries
        self._client = client

    def run(self, operation: Operation[T]) -> T:
        """Run an operation to its end.

        Args:
            operation: What to do.

        Returns:
            What it gives.
        """
        stream = _Stream()
        try:
            step = next(operation)
            while True:
                try:
                    given = self._do(step, stream)
                except Exception as error:
                    step = operation.throw(error)
                else:
                    step = operation.send(given)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            operation.close()
            if stream.response is not None:
                stream.response.close()

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _do(self, step: Step, stream: _Stream) -> Any:
        if isinstance(step, Ask):
            return self.run(ask(step.request, self.retries))
        if isinstance(step, Send):
            with ExitStack() as files:
                return self._client.send(_request(self._client, step, files))
        if isinstance(step, Save):
            return self._save(step)
        if isinstance(step, Open):
            with ExitStack() as files:
                stream.response = self._client.send(_request(self._client, step.request, files), stream=True)
            stream.lines = stream.response.iter_lines()
            return stream.response
        if isinstance(step, Line):
            assert stream.lines is not None, "nothing is open"
            return next(stream.lines, None)
        if isinstance(step, Close):
            if stream.response is not None:
                stream.response.close()
            return None
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        return step.function()

    def _save(self, step: Save) -> httpx.Response:
        with ExitStack() as files:
            request = _request(self._client, going_on(step), files)
            response = self._client.send(request, stream=True)
            files.callback(response.close)
            if response.is_error:
                response.read()
            else:
                with step.file.open(begin(step.saved, response)) as out:
                    for block in response.iter_raw():
                        out.write(block)
                        step.saved.bytes += len(block)
        return response


class AsyncConnection:
    """Runs the same operations in an event loop."""

    def __init__(self, client: httpx.AsyncClient, *, retries: int) -> None:
        self.retries = retries
        self._client = client

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation to its end.

        Args:
            operation: What to do.

        Returns:
            What it gives.
        """
        stream = _Stream()
        try:
            step = next(operation)
            while True:
                try:
                    given = await self._do(step, stream)
                except Exception as error:
                    step = operation.throw(error)
                else:
                    step = operation.send(given)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            operation.close()
            if stream.response is not None:
                await stream.response.aclose()

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _do(self, step: Step, stream: _Stream) -> Any:
        if isinstance(step, Ask):
            return await self.run(ask(step.request, self.retries))
        if isinstance(step, Send):
            with ExitStack() as files:
                return await self._client.send(_request(self._client, step, files))
        if isinstance(step, Save):
            return await self._save(step)
        if isinstance(step, Open):
            with ExitStack() as files:
                request = _request(self._client, step.request, files)
                stream.response = await self._client.send(request, stream=True)
            stream.async_lines = stream.response.aiter_lines()
            return stream.response
        if isinstance(step, Line):
            assert stream.async_lines is not None, "nothing is open"
            return await anext(stream.async_lines, None)
        if isinstance(step, Close):
            if stream.response is not None:
                await stream.response.aclose()
            return None
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        return await asyncio.to_thread(step.function)

    async def _save(self, step: Save) -> httpx.Response:
        with ExitStack() as files:
            response = await self._client.send(_request(self._client, going_on(step), files), stream=True)
            try:
                if response.is_error:
                    await response.aread()
                else:
                    with step.file.open(begin(step.saved, response)) as out:
                        async for block in response.aiter_raw():
                            await asyncio.to_thread(out.write, block)
                            step.saved.bytes += len(block)
            finally:
                await response.aclose()
        return response


class _Stream:
    """The answer that an operation has open."""

    def __init__(self) -> None:
        self.response: httpx.Response | None = None
        self.lines: Iterator[str] | None = None
        self.async_lines: AsyncIterator[str] | None = None


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A file as it goes out, for either kind of client."""

    def __init__(self, body: FileBody) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return self._body.blocks()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        blocks = self._body.blocks()
        while (block := await asyncio.to_thread(next, blocks, None)) is not None:
            yield block


def _request(client: httpx.Client | httpx.AsyncClient, send: Send, files: ExitStack) -> httpx.Request:
    """Build a request; the files of its form are open as long as `files` is."""
    timeout = client.timeout if send.timeout is None else _timeout(*send.timeout)
    parts = [(part.name, _part(part.content, part.filename, part.kind, files)) for part in send.form]
    whole = send.body if isinstance(send.body, bytes) else None
    request = client.build_request(
        send.method,
        send.path,
        params={name: value for name, value in send.params.items() if value is not None},
        headers=dict(send.headers),
        files=parts or None,
        content=whole,
        timeout=timeout,
    )
    if request.url.host != client.base_url.host or request.url.port != client.base_url.port:
        request.headers.pop("Authorization", None)  # a bucket's address says itself what it is good for
    if isinstance(send.body, FileBody):
        headers = request.headers.copy()
        headers["Content-Length"] = str(send.body.size)
        return httpx.Request(
            request.method,
            request.url,
            headers=headers,
            stream=_Body(send.body),
            extensions=request.extensions,
        )
    return request


def _part(content: str | Path, filename: str | None, kind: str | None, files: ExitStack) -> tuple[Any, ...]:
    opened = files.enter_context(content.open("rb")) if isinstance(content, Path) else content
    return (filename, opened) if kind is None else (filename, opened, kind)


def _timeout(connect: float, silence: float) -> httpx.Timeout:
    return httpx.Timeout(connect, read=silence, write=silence)
