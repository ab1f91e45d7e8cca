"""Which devices a service has, and which requests they serve."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.executors import devices
from app.executors.devices import find_devices, served_by
from app.settings import Settings


@pytest.mark.parametrize(("counted", "found"), [(0, ("cpu",)), (2, ("cuda:0", "cuda:1"))])
def test_auto_takes_what_torch_can_use(
    monkeypatch: pytest.MonkeyPatch, counted: int, found: tuple[str, ...]
) -> None:
    def count(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, stdout=f"{counted}\n")

    monkeypatch.setattr(devices.subprocess, "run", count)
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("/dev/nvidia0")]))
    assert find_devices(("auto",)) == found
    assert find_devices(("cuda:1", "cpu")) == ("cuda:1", "cpu")


def test_auto_without_a_gpu_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("torch was loaded")

    monkeypatch.setattr(devices.subprocess, "run", refuse)
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))
    assert find_devices(("auto",)) == ("cpu",)


@pytest.mark.parametrize(
    ("device", "requests"),
    [
        ("cpu", {"auto", "cpu"}),
        ("cuda:0", {"auto", "cuda", "cuda:0"}),
        ("cuda:1", {"auto", "cuda", "cuda:1"}),
    ],
)
def test_a_device_serves_these_requests(device: str, requests: set[str]) -> None:
    assert set(served_by(device)) == requests


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_DEVICES", "cuda:0, cuda:1")
    monkeypatch.setenv("BITWRIGHT_UPLOAD_LIMIT", "1000")
    assert Settings().devices == ("cuda:0", "cuda:1")
    assert Settings().upload_limit == 1000
    assert Settings(devices=("cpu",)).devices == ("cpu",)
    for bad in ("gpu", "cpu,cpu", "", "auto,cpu"):
        monkeypatch.setenv("BITWRIGHT_DEVICES", bad)
        with pytest.raises(ValidationError):
            Settings()
