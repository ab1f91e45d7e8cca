"""Webhooks are signed, tried again, and never sent where they were not asked for."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from pathlib import Path

import httpx
import pytest

from app.jobs.database import Database, sqlite_url
from app.jobs.store import JobStore, Submission
from app.settings import Settings
from app.webhooks import SIGNATURE, Webhooks
from quant_core.spec import QuantizeSpec

SECRET = "a secret of some length"


def _run(tmp_path: Path, statuses: list[int], webhook: str | None) -> tuple[list[httpx.Request], list[float]]:
    store = JobStore(Database(sqlite_url(tmp_path / "jobs.sqlite")))
    store.create(Submission("j", model="m", data="d", spec=QuantizeSpec(), tags=("x",), webhook=webhook))
    store.cancel("j")
    seen: list[httpx.Request] = []
    pauses: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        status = statuses[len(seen) - 1]
        if status == 0:
            raise httpx.ConnectError("refused")
        return httpx.Response(status, headers={"Location": "http://elsewhere/"})

    hooks = Webhooks(store, SECRET, httpx.MockTransport(answer), pauses.append)
    hooks.start()
    hooks.ended("j")
    hooks.ended("no such job")
    hooks.stop()
    return seen, pauses


def test_the_end_of_a_job_is_told_signed_until_someone_listens(tmp_path: Path) -> None:
    seen, pauses = _run(tmp_path, [500, 0, 302, 204], "https://me.example/hook")
    assert [str(request.url) for request in seen] == ["https://me.example/hook"] * 4
    assert pauses == sorted(pauses)
    assert len(pauses) == 3
    told = json.loads(seen[-1].content)
    assert (told["id"], told["state"], told["tags"]) == ("j", "canceled", ["x"])
    stamp, digest = (part.split("=")[1] for part in seen[-1].headers[SIGNATURE].split(","))
    expected = hmac.new(SECRET.encode(), f"{stamp}.".encode() + seen[-1].content, hashlib.sha256).hexdigest()
    assert digest == expected


def test_a_host_that_hangs_delays_no_other(tmp_path: Path) -> None:
    store = JobStore(Database(sqlite_url(tmp_path / "jobs.sqlite")))
    for name in ("hangs", "listens"):
        store.create(
            Submission(name, model="m", data="d", spec=QuantizeSpec(), webhook=f"https://{name}.example/hook")
        )
        store.cancel(name)
    listened = threading.Event()
    order = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "hangs.example":
            assert listened.wait(900)
        order.append(request.url.host)
        listened.set()
        return httpx.Response(204)

    hooks = Webhooks(store, SECRET, httpx.MockTransport(answer))
    hooks.start()
    hooks.ended("hangs")
    hooks.ended("listens")
    hooks.stop()
    assert order == ["listens.example", "hangs.example"]


def test_it_gives_up_in_the_end(tmp_path: Path) -> None:
    assert len(_run(tmp_path, [503] * 9, "https://me.example/hook")[0]) == 5


def test_nothing_is_sent_where_nothing_was_asked_for(tmp_path: Path) -> None:
    assert _run(tmp_path, [], None)[0] == []


def test_hosts_need_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="webhook_secret"):
        Settings(webhook_hosts="me.example", webhook_secret="short")  # type: ignore[arg-type]
    settings = Settings(webhook_hosts="me.example, you.example", webhook_secret=SECRET)  # type: ignore[arg-type]
    assert settings.webhook_hosts == ("me.example", "you.example")
    assert SECRET not in repr(settings)
