"""Settings that contradict each other are refused by the names that operators set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"BITWRIGHT_LEASE_SECONDS": "10"},
            "Error: BITWRIGHT_LEASE_SECONDS is 10, and with BITWRIGHT_RENEW_SECONDS 10 it must be at least 20\n",
        ),
        (
            {"BITWRIGHT_WEBHOOK_HOSTS": "a.example"},
            "Error: BITWRIGHT_WEBHOOK_HOSTS needs a BITWRIGHT_WEBHOOK_SECRET",
        ),
        ({"BITWRIGHT_EXECUTOR": "ray"}, "Error: BITWRIGHT_EXECUTOR=ray needs BITWRIGHT_RAY_ADDRESS"),
        ({"BITWRIGHT_EXECUTOR": "ray", "BITWRIGHT_RAY_ADDRESS": "head:1"}, "ray needs a BITWRIGHT_RAY_TOKEN"),
        ({"BITWRIGHT_MAX_INTERRUPTIONS": "0"}, "Error: BITWRIGHT_MAX_INTERRUPTIONS: "),
    ],
)
def test_the_variables_are_named(given: dict[str, str], told: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "bitwright",
        "serve",
        "--port",
        "0",
        "--data-dir",
        str(tmp_path / "data"),
    ]
    ended = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, timeout=900)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert told in ended.stderr
