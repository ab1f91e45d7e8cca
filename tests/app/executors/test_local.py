"""Attempts whose process is killed, or ends before its pool knows whose it was."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pebble.pool.process import TaskManager

from app.executors.local import LocalExecutor
from app.executors.protocol import Task
from quant_core.spec import QuantizeSpec
from tests.app.service import FAKES

SLEEPS, CRASHES = 2, 3


def test_a_process_that_crashes_at_once_is_told_with_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TaskManager, "task_start", lambda *_: None)  # the word that it began is never heard
    monkeypatch.syspath_prepend(str(FAKES))
    for name in ("m.onnx", "d.npz"):
        (tmp_path / name).write_bytes(b"\x08")
    executor = LocalExecutor(("cpu",), {"quantize": "fake_engine:quantize"})
    ticket = executor.submit(
        Task("j", 1, tmp_path / "m.onnx", tmp_path / "d.npz", QuantizeSpec(seed=CRASHES), tmp_path), "cpu"
    )
    outcome, deadline = None, time.monotonic() + 900
    while outcome is None and time.monotonic() < deadline:
        outcome = executor.poll(ticket).outcome
        time.sleep(0.01)
    executor.close()
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.code, "SIGSEGV" in outcome.error.message) == ("worker_lost", True)


def test_temporary_files_of_a_killed_attempt_lie_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FAKES))
    elsewhere, scratch = tmp_path / "elsewhere", tmp_path / "attempt"
    elsewhere.mkdir()
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    for name in ("m.onnx", "d.npz"):
        (tmp_path / name).write_bytes(b"\x08")
    executor = LocalExecutor(("cpu",), {"quantize": "fake_engine:quantize"})
    ticket = executor.submit(
        Task("j", 1, tmp_path / "m.onnx", tmp_path / "d.npz", QuantizeSpec(seed=SLEEPS), scratch), "cpu"
    )
    outcome, deadline = None, time.monotonic() + 900
    while outcome is None and time.monotonic() < deadline:
        outcome = executor.poll(ticket).outcome
        if [*scratch.glob("temporary/*"), *elsewhere.iterdir()]:
            executor.cancel(ticket)
        time.sleep(0.01)
    executor.close()
    assert outcome is not None
    assert outcome.state == "canceled"
    assert list(elsewhere.iterdir()) == []
