"""Webhooks are signed, tried again, and never sent where they were not asked for."""

from __future__ import annotations

import hashlib
import hmac
import json
import textwrap
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from app.jobs.calls import Calls
from app.jobs.database import Database, sqlite_url
from app.jobs.store import JobStore, Submission
from app.settings import Settings
from app.webhooks import SIGNATURE, Webhooks
from quant_core.spec import QuantizeSpec

SECRET = "a secret of some length"
HOSTS = ("me.example", "hangs.example", "listens.example")
_PAUSE = 0.02


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(sqlite_url(tmp_path / "jobs.sqlite"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a service gives up after some seconds, it has the time for on a busy machine."""
    monkeypatch.setattr("app.webhooks._TIMEOUT", 300.0)
    monkeypatch.setattr("app.webhooks._CLAIM", 3000.0)


def _run(
    database: Database, statuses: list[int], webhook: str | None
) -> tuple[list[httpx.Request], list[float]]:
    store = JobStore(database)
    store.create(Submission("j", model="m", data="d", spec=QuantizeSpec(), tags=("x",), webhook=webhook))
    seen: list[httpx.Request] = []
    moments: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        moments.append(time.monotonic())
        status = statuses[len(seen) - 1]
        if status == 0:
            raise httpx.ConnectError("refused")
        return httpx.Response(status, headers={"Location": "http://elsewhere/"})

    hooks = Webhooks(database, SECRET, HOSTS, httpx.MockTransport(answer), _PAUSE)
    hooks.start()
    store.cancel("j")
    hooks.ended("j")
    hooks.ended("no such job")
    hooks.stop()
    return seen, [later - earlier for earlier, later in pairwise(moments)]


def test_the_end_of_a_job_is_told_signed_until_someone_listens(database: Database) -> None:
    seen, pauses = _run(database, [500, 0, 302, 204], "https://me.example/hook")
    assert [str(request.url) for request in seen] == ["https://me.example/hook"] * 4
    assert all(pause >= _PAUSE * 2**number for number, pause in enumerate(pauses))
    told = json.loads(seen[-1].content)
    assert (told["id"], told["state"], told["tags"]) == ("j", "canceled", ["x"])
    stamp, digest = (part.split("=")[1] for part in seen[-1].headers[SIGNATURE].split(","))
    expected = hmac.new(SECRET.encode(), f"{stamp}.".encode() + seen[-1].content, hashlib.sha256).hexdigest()
    assert digest == expected


@pytest.mark.parametrize(
    ("secret", "late", "genuine"), [(SECRET, 0, True), ("another", 0, False), (SECRET, 400, False)]
)
def test_who_receives_it_can_tell_it_is_genuine_as_the_page_says(
    secret: str, late: int, genuine: bool, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    (call, *_), _ = _run(database, [204], "https://me.example/hook")
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    shown = page.split("compares in constant time and refuses old times:")[1]
    snippet = textwrap.dedent(shown.split("```python\n")[1].split("```")[0])
    names = {"headers": call.headers, "body": call.content, "secret": secret.encode()}
    now = time.time() + late
    monkeypatch.setattr(time, "time", lambda: now)
    exec(snippet, globals(), names)
    assert names["genuine"] == genuine


def test_a_host_that_hangs_delays_no_other(database: Database) -> None:
    store = JobStore(database)
    for name in ("hangs", "listens"):
        store.create(
            Submission(name, model="m", data="d", spec=QuantizeSpec(), webhook=f"https://{name}.example/hook")
        )
    listened = threading.Event()
    order = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "hangs.example":
            assert listened.wait(900)
        order.append(request.url.host)
        listened.set()
        return httpx.Response(204)

    hooks = Webhooks(database, SECRET, HOSTS, httpx.MockTransport(answer))
    hooks.start()
    for name in ("hangs", "listens"):
        store.cancel(name)
        hooks.ended(name)
    hooks.stop()
    assert order == ["listens.example", "hangs.example"]


def test_a_call_that_fails_delays_no_other_of_its_host(database: Database) -> None:
    store = JobStore(database)
    for name in ("fails", "listens", "too"):
        store.create(
            Submission(name, model="m", data="d", spec=QuantizeSpec(), webhook=f"https://me.example/{name}")
        )
    order, told = [], threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        order.append(request.url.path[1:])
        if order[-1] == "too":
            told.set()
        return httpx.Response(500 if order[-1] == "fails" else 204)

    hooks = Webhooks(database, SECRET, HOSTS, httpx.MockTransport(answer), 900.0)
    hooks.start()
    for name in ("fails", "listens", "too"):
        store.cancel(name)
        hooks.ended(name)
    assert told.wait(900)
    hooks.stop()
    assert order == ["fails", "listens", "too"]


def test_a_host_is_told_of_one_job_after_another(database: Database) -> None:
    store = JobStore(database)
    names = [f"job{number}" for number in range(4)]
    for name in names:
        store.create(
            Submission(name, model="m", data="d", spec=QuantizeSpec(), webhook=f"https://me.example/{name}")
        )
        store.cancel(name)
    told: list[str] = []
    at_once, most = 0, 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.02)
        told.append(request.url.path)
        at_once -= 1
        return httpx.Response(204)

    hooks = Webhooks(database, SECRET, HOSTS, httpx.MockTransport(answer), _PAUSE)
    for name in names:
        hooks.ended(name)
    hooks._thread.start()  # not those of a service that has ended, which are the same
    hooks.stop()
    assert told == [f"/{name}" for name in names]
    assert most == 1


def test_a_service_that_has_stopped_makes_no_call_that_was_due(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.webhooks._TIMEOUT", 0.05)
    store = JobStore(database)
    for name in ("first", "second"):
        store.create(
            Submission(name, model="m", data="d", spec=QuantizeSpec(), webhook=f"https://me.example/{name}")
        )
        store.cancel(name)
    told: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        told.append(request.url.path)
        (host,) = hooks._hosts.values()
        while host._end is None or time.monotonic() <= host._end:
            time.sleep(0.005)
        return httpx.Response(204)

    hooks = Webhooks(database, SECRET, HOSTS, httpx.MockTransport(answer), _PAUSE)
    hooks.start()
    while not told:
        time.sleep(0.005)
    (host,) = hooks._hosts.values()
    while not host._due:
        time.sleep(0.005)
    hooks.stop()
    host.thread.join(900)
    assert len(told) == 1
    (left,) = {"/first", "/second"} - {*told}
    assert f"the end of job {left[1:]} is not told yet: the service stops" in caplog.text
    assert not host.thread.is_alive()


def test_it_gives_up_in_the_end(database: Database) -> None:
    assert len(_run(database, [503] * 9, "https://me.example/hook")[0]) == 5


def test_what_a_service_could_not_tell_is_told_by_the_next_and_once(database: Database) -> None:
    store = JobStore(database)
    for name in ("first", "second", "waits"):
        store.create(
            Submission(name, model="m", data="d", spec=QuantizeSpec(), webhook=f"https://me.example/{name}")
        )
        if name != "waits":
            store.cancel(name)
    listens, told = False, []

    def answer(request: httpx.Request) -> httpx.Response:
        told.append(request.url.path[1:])
        return httpx.Response(204 if listens else 503)

    ends = Webhooks(database, SECRET, HOSTS, httpx.MockTransport(answer), 900.0)
    ends.start()
    ends.stop()
    assert told == ["first", "second"]
    listens = True
    for expected in (["first", "second"], []):
        told.clear()
        following = Webhooks(database, SECRET, HOSTS, httpx.MockTransport(answer))
        following.start()
        following.stop()
        assert told == expected


def test_a_host_that_settings_no_longer_list_is_not_told(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    assert _run(database, [], "https://was.example/hook")[0] == []
    assert "BITWRIGHT_WEBHOOK_HOSTS does not list was.example" in caplog.text


def test_who_gave_up_is_not_called_again(database: Database) -> None:
    assert len(_run(database, [503] * 9, "https://me.example/hook")[0]) == 5
    assert not _untold(Calls(database))


def _untold(calls: Calls) -> tuple[str, ...]:
    return calls.untold(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


def _ended(database: Database, name: str = "j") -> None:
    store = JobStore(database)
    address = f"https://me.example/{name}"
    store.create(Submission(name, model="m", data="d", spec=QuantizeSpec(), webhook=address))
    store.cancel(name)


def test_two_services_that_find_one_call_make_it_once(database: Database) -> None:
    _ended(database)
    seen: list[str] = []
    called, heard = threading.Event(), threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        called.set()
        if len(seen) == 1:
            assert heard.wait(900)
        return httpx.Response(204)

    one, other = (Webhooks(database, SECRET, HOSTS, httpx.MockTransport(answer)) for _ in range(2))
    one.start()
    assert called.wait(900)
    other.start()
    other.stop()  # after what it had found
    heard.set()
    one.stop()
    assert seen == ["/j"]
    assert not _untold(Calls(database))


def test_what_another_service_left_is_told_by_one_that_runs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.webhooks._PERIOD", 0.01)
    monkeypatch.setattr("app.webhooks._GRACE", timedelta(0))
    told = threading.Event()

    def answer(_: httpx.Request) -> httpx.Response:
        told.set()
        return httpx.Response(204)

    hooks = Webhooks(database, SECRET, HOSTS, httpx.MockTransport(answer))
    hooks.start()
    _ended(database)
    assert told.wait(900)
    hooks.stop()


def test_nothing_is_sent_where_nothing_was_asked_for(database: Database) -> None:
    assert _run(database, [], None)[0] == []


def test_hosts_need_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="webhook_secret"):
        Settings(webhook_hosts="me.example", webhook_secret="short")  # type: ignore[arg-type]
    settings = Settings(webhook_hosts="me.example, you.example", webhook_secret=SECRET)  # type: ignore[arg-type]
    assert settings.webhook_hosts == ("me.example", "you.example")
    assert SECRET not in repr(settings)
