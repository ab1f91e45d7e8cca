"""Retries and errors, against answers made by hand, for the client that waits and the one that awaits."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest

from bitwright.connection import AsyncConnection, Connection
from bitwright.errors import (
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    ResponseError,
    ServerError,
    ServiceBusyError,
    ServiceUnreachableError,
)
from bitwright.operations.answers import ask, save
from bitwright.operations.submit import submit
from bitwright.steps import Ask, FileBody, Operation, Part, Pause, Send, Work
from quant_core.spec import QuantizeSpec

Answer = Callable[[int], httpx.Response]


class Talk:
    """Runs operations against answers made by hand; pauses are written down instead of made."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pauses: list[float] = []
        self.asked: list[httpx.Request] = []

    def run(self, operation: Operation[Any], answer: Answer) -> Any:
        def handle(request: httpx.Request) -> httpx.Response:
            request.read() if self.kind == "sync" else None
            self.asked.append(request)
            return answer(len(self.asked))

        async def handle_async(request: httpx.Request) -> httpx.Response:
            await request.aread()
            return handle(request)

        if self.kind == "sync":
            with httpx.Client(base_url="http://service", transport=httpx.MockTransport(handle)) as client:
                return Connection(client, retries=0).run(self._unhurried(operation))

        async def awaited() -> Any:
            transport = httpx.MockTransport(handle_async)
            async with httpx.AsyncClient(base_url="http://service", transport=transport) as client:
                return await AsyncConnection(client, retries=0).run(self._unhurried(operation))

        return asyncio.run(awaited())

    def ask(self, request: Send, answer: Answer, retries: int = 3) -> httpx.Response:
        response: httpx.Response = self.run(ask(request, retries), answer)
        return response

    def _unhurried(self, operation: Operation[Any]) -> Operation[Any]:
        given, error = None, None
        while True:
            try:
                step = operation.throw(error) if error is not None else operation.send(given)
            except StopIteration as end:
                return end.value
            try:
                pause = step.seconds if isinstance(step, Pause) else None
                given = yield step if pause is None else Work(lambda pause=pause: self.pauses.append(pause))
                error = None
            except Exception as raised:
                error = raised


@pytest.fixture(params=["sync", "async"])
def talk(request: pytest.FixtureRequest) -> Talk:
    return Talk(request.param)


GET = Send("GET", "/jobs/j")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError), (413, InvalidRequestError), (415, InvalidRequestError),
        (422, InvalidRequestError), (404, NotFoundError), (409, ConflictError), (500, ServerError),
        (507, ServerError), (503, ServiceBusyError), (429, RateLimitedError), (401, AuthenticationError),
        (403, ForbiddenError), (502, ServiceBusyError), (504, ServiceBusyError),
    ],
)  # fmt: skip
def test_each_status_has_its_error(talk: Talk, status: int, kind: type[ResponseError]) -> None:
    problem = {"code": "c", "message": "m.", "remedy": "r.", "where": "w", "request_id": "q"}
    with pytest.raises(kind) as caught:
        talk.ask(GET, lambda _: httpx.Response(status, json=problem), retries=0)
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code, error.message, error.remedy) == (status, "c", "m.", "r.")
    assert (error.where, error.request_id, error.job_id) == ("w", "q", "j")
    assert str(error) == "w: m. r. (request q)"


def test_a_gateway_may_answer_in_its_own_words(talk: Talk) -> None:
    page = httpx.Response(502, text="<h1>Bad Gateway</h1>", headers={"X-Request-ID": "g"})
    with pytest.raises(ServiceBusyError, match=r"answered 502 Bad Gateway\. A gateway in between") as caught:
        talk.ask(GET, lambda _: page)
    assert caught.value.request_id == "g"


@pytest.mark.parametrize("status", [502, 504])
def test_a_gateway_without_its_service_is_asked_again(talk: Talk, status: int) -> None:
    assert talk.ask(GET, lambda count: httpx.Response(200 if count == 3 else status)).status_code == 200
    assert len(talk.asked) == 3


def _broken(error: type[httpx.TransportError], until: int) -> Answer:
    def answer(count: int) -> httpx.Response:
        if count < until:
            raise error("broken")
        return httpx.Response(200)

    return answer


def test_safe_requests_are_repeated_with_growing_pauses(talk: Talk) -> None:
    assert talk.ask(GET, _broken(httpx.ReadError, 4)).status_code == 200
    assert len(talk.asked) == 4
    for pause, base in zip(talk.pauses, (0.25, 0.5, 1.0), strict=True):
        assert base / 2 <= pause <= base


def test_repeating_ends(talk: Talk) -> None:
    with pytest.raises(ServiceUnreachableError, match="http://service/"):
        talk.ask(GET, _broken(httpx.ReadError, 100))
    assert len(talk.asked) == 4


def test_a_change_is_repeated_only_if_it_was_never_heard(talk: Talk) -> None:
    change = Send("DELETE", "/x", safe=False)
    with pytest.raises(ServiceUnreachableError):
        talk.ask(change, _broken(httpx.ReadError, 2))
    assert len(talk.asked) == 1
    talk.asked.clear()
    assert talk.ask(change, _broken(httpx.ConnectError, 2)).status_code == 200
    assert len(talk.asked) == 2


def test_a_busy_service_is_asked_again_when_it_says(talk: Talk) -> None:
    def answer(count: int) -> httpx.Response:
        return httpx.Response(429, headers={"Retry-After": "7"}) if count == 1 else httpx.Response(200)

    assert talk.ask(GET, answer).status_code == 200
    assert talk.pauses == [7]
    talk.asked.clear()
    with pytest.raises(ServiceBusyError):
        talk.ask(Send("POST", "/x", safe=False), answer)
    assert len(talk.asked) == 1


@pytest.mark.parametrize("after", ["61", "86400", "9" * 400])
def test_who_is_told_to_stay_away_for_long_has_the_answer_at_once(talk: Talk, after: str) -> None:
    with pytest.raises(RateLimitedError, match=f"Try again in {after} seconds") as caught:
        talk.ask(GET, lambda _: httpx.Response(429, headers={"Retry-After": after}))
    assert caught.value.retry_after == float(after)
    assert (len(talk.asked), talk.pauses) == (1, [])


def test_a_service_may_say_by_a_date_when_to_ask_again(talk: Talk) -> None:
    def answer(count: int) -> httpx.Response:
        after = formatdate(time.time() + (3600 if count > 1 else 30), usegmt=True)
        return httpx.Response(503, headers={"Retry-After": after})

    with pytest.raises(ServiceBusyError, match=r"Try again after .* GMT") as caught:
        talk.ask(GET, answer)
    assert 3500 < caught.value.retry_after <= 3600
    assert len(talk.pauses) == 1
    assert 20 < talk.pauses[0] <= 30


@pytest.mark.parametrize("after", ["", "-5", "1.5", "5, 7", "soon", "Mon, 32 Jan 2026 00:00:00 GMT", "²"])
def test_what_is_no_time_to_ask_again_is_passed_over(talk: Talk, after: str) -> None:
    with pytest.raises(ServiceBusyError) as caught:
        talk.ask(GET, lambda _: httpx.Response(503, headers=[(b"Retry-After", after.encode())]))
    assert caught.value.retry_after == 0
    assert len(talk.asked) > 1


def test_a_form_is_sent_whole_each_time(talk: Talk, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"content")
    form = (Part("spec", "{}", kind="application/json"), Part("model", file, "m.onnx"), Part("data", "an-id"))
    assert talk.ask(Send("POST", "/x", form=form), _broken(httpx.ReadError, 3)).status_code == 200
    bodies = [request.content for request in talk.asked]
    assert len(bodies) == 3
    for body in bodies:
        assert b'name="model"; filename="m.onnx"' in body
        assert b"content" in body
        assert b'name="data"\r\n\r\nan-id' in body


def test_what_was_not_asked_is_not_sent(talk: Talk, tmp_path: Path) -> None:
    for name in ("m.onnx", "d.npz"):
        (tmp_path / name).write_bytes(b"")
    spec = QuantizeSpec.model_validate({"size": 0.18, "pin": {"fc": 8}})
    with pytest.raises(InvalidRequestError):
        talk.run(
            _asking(submit("/quantize", tmp_path / "m.onnx", tmp_path / "d.npz", spec)),
            lambda _: httpx.Response(422),
        )
    (request,) = talk.asked
    assert b'{"rules":[{"match":"fc","pin":8}],"budget":{"size":0.18}}' in request.content
    assert request.headers["Idempotency-Key"]


def _asking(operation: Operation[Any]) -> Operation[Any]:
    """Carries out requests at once, as a connection without retries does."""
    step = next(operation)
    while True:
        try:
            step = operation.send(
                (yield from ask(step.request, 0)) if isinstance(step, Ask) else (yield step)
            )
        except StopIteration as end:
            return end.value


def test_the_rest_of_a_file_is_sent_with_its_length(talk: Talk, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(bytes(range(256)) * 8192)
    told: list[int] = []
    talk.ask(Send("PUT", "/x", body=FileBody(file, 100, on_bytes=told.append)), lambda _: httpx.Response(201))
    (request,) = talk.asked
    assert request.content == file.read_bytes()[100:]
    assert request.headers["Content-Length"] == str(2**21 - 100)
    assert "Transfer-Encoding" not in request.headers
    assert told == [100 + 2**20, 2**21]


class _Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, *, fail: bool) -> None:
        self._fail = fail

    def __iter__(self) -> Iterator[bytes]:
        yield b"half"
        if self._fail:
            raise httpx.ReadError("broken")
        yield b"whole"

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def test_a_download_starts_again_when_the_connection_breaks(talk: Talk, tmp_path: Path) -> None:
    operation = save(GET, tmp_path / "f", 3)
    talk.run(operation, lambda count: httpx.Response(200, stream=_Pieces(fail=count == 1)))
    assert (tmp_path / "f").read_bytes() == b"halfwhole"
    with pytest.raises(NotFoundError):
        talk.run(save(GET, tmp_path / "g", 3), lambda _: httpx.Response(404, json={"code": "c"}))
    assert not (tmp_path / "g").exists()


def _stretch(content: bytes, request: httpx.Request, *, tag: str, breaks: bool) -> httpx.Response:
    first = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
    if request.headers.get("If-Range", tag) != tag:
        first = 0
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    headers = {"ETag": tag, "Repr-Digest": f"sha-256=:{digest}:"}
    if first:
        headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
    end = first + 5 if breaks else len(content)
    return httpx.Response(
        206 if first else 200, headers=headers, stream=_Some(content[first:end], fail=breaks)
    )


class _Some(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, content: bytes, *, fail: bool) -> None:
        self._content, self._fail = content, fail

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
        if self._fail:
            raise httpx.ReadError("broken")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def test_a_download_goes_on_where_the_connection_broke(talk: Talk, tmp_path: Path) -> None:
    content = b"0123456789abcdefghij"
    operation = save(GET, tmp_path / "f", 1)  # more breaks than retries: each gets further
    talk.run(operation, lambda count: _stretch(content, talk.asked[-1], tag='"a"', breaks=count < 4))
    assert (tmp_path / "f").read_bytes() == content
    assert [request.headers.get("Range") for request in talk.asked] == [
        None,
        "bytes=5-",
        "bytes=10-",
        "bytes=15-",
    ]
    assert [request.headers.get("If-Range") for request in talk.asked] == [None, '"a"', '"a"', '"a"']


def test_a_download_of_what_has_changed_starts_again(talk: Talk, tmp_path: Path) -> None:
    def answer(count: int) -> httpx.Response:
        content, tag = (b"old content", '"old"') if count == 1 else (b"new content!", '"new"')
        return _stretch(content, talk.asked[-1], tag=tag, breaks=count == 1)

    talk.run(save(GET, tmp_path / "f", 3), answer)
    assert (tmp_path / "f").read_bytes() == b"new content!"


def test_a_download_that_is_not_what_was_sent_is_noticed(talk: Talk, tmp_path: Path) -> None:
    headers = {"Repr-Digest": f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"}
    with pytest.raises(ServerError, match="not what the service has"):
        talk.run(
            save(GET, tmp_path / "f", 3),
            lambda _: httpx.Response(200, stream=_Some(b"x", fail=False), headers=headers),
        )
    assert len(talk.asked) == 2


def test_no_key_is_shown_elsewhere(tmp_path: Path) -> None:
    asked: list[httpx.Request] = []
    transport = httpx.MockTransport(lambda request: asked.append(request) or httpx.Response(200))
    with httpx.Client(
        base_url="http://service", headers={"Authorization": "Bearer bw_x"}, transport=transport
    ) as client:
        connection = Connection(client, retries=0)
        for address in ("/jobs", "http://bucket/object?X-Amz-Signature=1", "http://service:81/x"):
            connection.run(ask(Send("GET", address), 0))
    assert ["Authorization" in request.headers for request in asked] == [True, False, False]
