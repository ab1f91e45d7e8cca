"""Checks whose processes are killed, crash or take too long."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from pebble import ProcessExpired

from app.executors.checker import Checker, CheckerDownError
from quant_core.spec import QuantizeSpec


@pytest.fixture
def checker() -> Checker:
    return Checker(
        validators={"quantize": "fake:validate"},
        inspector="fake:inspect",
        workers=1,
        timeout=5,
        limits=(1, 1, 0),
    )


def _check(checker: Checker, monkeypatch: pytest.MonkeyPatch, *ends: BaseException | None) -> Any:
    """The answer where the processes end one after the other in these ways."""
    left = list(ends)

    def schedule(*_: Any, timeout: float) -> Future[Any]:
        assert timeout == 5
        future: Future[Any] = Future()
        end = left.pop(0)
        if end is None:
            future.set_result(None)
        else:
            future.set_exception(end)
        return future

    monkeypatch.setattr(checker._pool, "schedule", schedule)
    files = Path("/srv/net.onnx"), Path("/srv/x.npz")
    found = asyncio.run(checker.check(*files, QuantizeSpec(), Path("/srv/scratch")))
    assert not left
    return found


def test_an_idle_process_that_was_killed_is_not_the_uploads_fault(
    checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _check(checker, monkeypatch, BrokenProcessPool(), BrokenProcessPool(), None) is None
    with pytest.raises(CheckerDownError):
        _check(checker, monkeypatch, *(BrokenProcessPool() for _ in range(3)))


def test_a_crash_names_the_model_and_is_not_tried_again(
    checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _check(checker, monkeypatch, ProcessExpired("gone", code=-11))
    assert (found.code, found.where) == ("model", "net.onnx")
    assert "exit code -11" in found.message


def test_a_check_that_takes_too_long_says_how_long_it_may(
    checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _check(checker, monkeypatch, TimeoutError())
    assert found.code == "check_timeout"
    assert "longer than 5 seconds" in found.message
