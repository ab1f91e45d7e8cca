"""Following a job when streams break, are missing, or lie still."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from bitwright.connection import AsyncConnection, Connection
from bitwright.errors import RateLimitedError
from bitwright.operations import follow as module
from bitwright.operations.follow import Event, Reader, wait

JOB = {
    "id": "j", "state": "analyzing", "stage": None, "stage_progress": 0.0, "progress": 0.0, "message": "",
    "cancel_requested": False, "attempt": 1, "model": "m.onnx", "data": "d.npz", "spec": {}, "error": None,
    "summary": None, "created": "2026-01-01T00:00:00Z", "started": None, "finished": None,
    "something_newer": 1,
}  # fmt: skip


def _event(number: int, **data: Any) -> str:
    kind = "state" if "state" in data else "progress"
    return f"event: {kind}\ndata: {json.dumps(data)}\nid: {number}\n\n"


def _step(number: int, progress: float) -> str:
    return _event(number, stage="sensitivity", fraction=0.5, progress=progress, message="m")


class _Service:
    """Answers looks at the job with `states` in turn (a number is an error's), and streams with `streams` in turn."""

    def __init__(self, states: list[str | int], streams: list[httpx.Response]) -> None:
        self.states, self.streams = states, streams
        self.resumed: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            self.resumed.append(request.headers.get("Last-Event-ID"))
            return self.streams.pop(0) if self.streams else httpx.Response(404, json={})
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, int):
            return httpx.Response(state)
        return httpx.Response(200, json={**JOB, "state": state})


class _Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        yield _step(1, 0.2).encode()
        raise httpx.ReadError("broken")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def _stream(text: str) -> httpx.Response:
    return httpx.Response(200, text=text, headers={"Content-Type": "text/event-stream"})


@pytest.fixture(params=["sync", "async"])
def follow(request: pytest.FixtureRequest) -> Callable[[_Service], list[tuple[str, float]]]:
    """Waits for a job by either kind of client, and tells what it was told."""

    def run(service: _Service) -> list[tuple[str, float]]:
        told: list[tuple[str, float]] = []
        operation = wait("j", 900, lambda info: told.append((info.state, info.progress)))
        transport = httpx.MockTransport(service)
        if request.param == "sync":
            with httpx.Client(base_url="http://s", transport=transport) as client:
                Connection(client, retries=0).run(operation)
            return told

        async def awaited() -> None:
            async with httpx.AsyncClient(base_url="http://s", transport=transport) as client:
                await AsyncConnection(client, retries=0).run(operation)

        asyncio.run(awaited())
        return told

    return run


Follow = Callable[[_Service], list[tuple[str, float]]]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)


def test_events_are_read_as_the_standard_says() -> None:
    lines = ': ping\nid: 1\nevent: a\ndata: {"x":\ndata: 1}\n\ndata:{"y": 2}\nid: 2\n\nid: 3\n\ndata: {"cut'
    reader = Reader()
    events = [reader.feed(line) for line in lines.split("\n")]
    assert [event for event in events if event is not None] == [
        Event("1", "a", {"x": 1}),
        Event("2", "message", {"y": 2}),
    ]


def test_a_stream_tells_progress_and_the_job_tells_the_end(follow: Follow) -> None:
    service = _Service(
        ["analyzing", "succeeded"], [_stream(_step(1, 0.2) + _step(2, 0.4) + _event(3, state="succeeded"))]
    )
    assert follow(service) == [("analyzing", 0.0), ("analyzing", 0.2), ("analyzing", 0.4), ("succeeded", 0.0)]


def test_a_broken_stream_is_resumed_behind_its_last_event(follow: Follow) -> None:
    first = httpx.Response(200, stream=_Broken(), headers={"Content-Type": "text/event-stream"})
    service = _Service(["analyzing", "analyzing", "succeeded"], [first, _stream(_step(2, 0.4))])
    assert [progress for _, progress in follow(service)] == [0.0, 0.2, 0.0, 0.4, 0.0]
    assert service.resumed == [None, "1"]


def test_no_pause_that_is_asked_for_outlasts_the_time_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("bitwright.connection.time.sleep", pauses.append)
    busy = httpx.MockTransport(lambda _: httpx.Response(429, headers={"Retry-After": "60"}))
    with (
        httpx.Client(base_url="http://s", transport=busy) as client,
        pytest.raises(RateLimitedError, match="Try again in 60 seconds"),
    ):
        Connection(client, retries=3).run(wait("j", 0.05))
    assert 0 < max(pauses) <= 0.05


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_service_that_is_busy_is_waited_for_and_its_stream_taken_up_again(
    follow: Follow, status: int
) -> None:
    first = httpx.Response(200, stream=_Broken(), headers={"Content-Type": "text/event-stream"})
    service = _Service(
        ["analyzing", status, "analyzing", "analyzing", "succeeded"], [first, httpx.Response(status)]
    )
    service.streams.append(_stream(_step(2, 0.4)))
    assert [progress for _, progress in follow(service)] == [0.0, 0.2, 0.0, 0.0, 0.4, 0.0]
    assert service.resumed == [None, "1", "1"]


def test_without_streams_the_job_is_asked_again_and_again(follow: Follow) -> None:
    service = _Service(["queued", "analyzing", "analyzing", "failed"], [httpx.Response(200, text="<html>")])
    assert [state for state, _ in follow(service)] == ["queued", "analyzing", "analyzing", "failed"]
    assert service.resumed == [None]
