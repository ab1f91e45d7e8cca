"""Retries and errors, against answers made by hand."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from bitwright.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ResponseError,
    ServerError,
    ServiceBusyError,
    ServiceUnreachableError,
)
from bitwright.transport import Transport

Answer = Callable[[int], httpx.Response]


def _transport(answer: Answer, retries: int = 3) -> tuple[Transport, list[float], list[str]]:
    pauses: list[float] = []
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        return answer(len(asked))

    client = httpx.Client(base_url="http://service", transport=httpx.MockTransport(handle))
    return Transport(client, retries=retries, sleep=pauses.append), pauses, asked


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError), (413, InvalidRequestError), (415, InvalidRequestError),
        (422, InvalidRequestError), (404, NotFoundError), (409, ConflictError), (500, ServerError),
        (507, ServerError), (503, ServiceBusyError), (429, ServiceBusyError),
    ],
)  # fmt: skip
def test_each_status_has_its_error(status: int, kind: type[ResponseError]) -> None:
    problem = {"code": "c", "message": "m.", "remedy": "r.", "where": "w", "request_id": "q"}
    transport, _, _ = _transport(lambda _: httpx.Response(status, json=problem), retries=0)
    with pytest.raises(kind) as caught:
        transport.get("/x")
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code, error.message, error.remedy) == (status, "c", "m.", "r.")
    assert (error.where, error.request_id) == ("w", "q")
    assert str(error) == "w: m. r. (request q)"


def test_a_gateway_may_answer_in_its_own_words() -> None:
    page = httpx.Response(502, text="<h1>Bad Gateway</h1>", headers={"X-Request-ID": "g"})
    transport, _, _ = _transport(lambda _: page)
    with pytest.raises(ServerError, match="answered 502 Bad Gateway") as caught:
        transport.get("/x")
    assert caught.value.request_id == "g"


def _broken(error: type[httpx.TransportError], until: int) -> Answer:
    def answer(count: int) -> httpx.Response:
        if count < until:
            raise error("broken")
        return httpx.Response(200)

    return answer


def test_safe_requests_are_repeated_with_growing_pauses() -> None:
    transport, pauses, asked = _transport(_broken(httpx.ReadError, 4))
    assert transport.get("/x").status_code == 200
    assert len(asked) == 4
    for pause, base in zip(pauses, (0.25, 0.5, 1.0), strict=True):
        assert base / 2 <= pause <= base


def test_repeating_ends() -> None:
    transport, _, asked = _transport(_broken(httpx.ReadError, 100))
    with pytest.raises(ServiceUnreachableError):
        transport.get("/x")
    assert len(asked) == 4


def test_a_change_is_repeated_only_if_it_was_never_heard() -> None:
    transport, _, asked = _transport(_broken(httpx.ReadError, 2))
    with pytest.raises(ServiceUnreachableError):
        transport.send("POST", "/x")
    assert asked == ["POST"]
    transport, _, asked = _transport(_broken(httpx.ConnectError, 2))
    assert transport.send("POST", "/x").status_code == 200
    assert asked == ["POST", "POST"]


def test_a_busy_service_is_asked_again_when_it_says() -> None:
    def answer(count: int) -> httpx.Response:
        return httpx.Response(429, headers={"Retry-After": "7"}) if count == 1 else httpx.Response(200)

    transport, pauses, _ = _transport(answer)
    assert transport.get("/x").status_code == 200
    assert 3.5 <= pauses[0] <= 7
    transport, _, asked = _transport(answer)
    with pytest.raises(ServiceBusyError):
        transport.send("POST", "/x")
    assert asked == ["POST"]


def test_a_download_starts_again_when_the_connection_breaks() -> None:
    def pieces(fail: bool) -> object:
        yield b"half"
        if fail:
            raise httpx.ReadError("broken")
        yield b"whole"

    transport, _, _ = _transport(lambda count: httpx.Response(200, content=pieces(count == 1)))
    got: list[bytes] = []
    transport.fetch("/x", lambda parts: got.append(b"".join(parts)))
    assert got == [b"halfwhole"]
