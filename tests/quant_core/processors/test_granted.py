"""A process uses no more processors than its control groups grant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quant_core.processors.granted import available_processors, limit_threads


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000"}, 64),
        ("0::/\n", {"cpu.max": "250000 100000"}, 3),
        ("0::/\n", {"cpu.max": "10000 100000"}, 1),
        (
            "0::/a/b\n",
            {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"},
            2,
        ),  # the least of all above
        ("0::/not/seen/here\n", {"cpu.max": "400000 100000"}, 4),
        (
            "9:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/\n",
            {"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "50000\n"},
            3,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "?", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("0::/\n", {"cpu.max": "9900000 100000"}, 64),
        ("", {}, 64),
        (None, {}, 64),
    ],
)
def test_processors_are_those_that_groups_grant(
    membership: str | None,
    files: dict[str, str],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    told, groups = tmp_path / "membership", tmp_path / "groups"
    if membership is not None:
        told.write_text(membership)
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    assert available_processors(told, groups) == expected


def test_libraries_are_told_where_less_is_granted_and_the_user_does_not_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(granted: int) -> str | None:
        monkeypatch.setattr("quant_core.processors.granted.available_processors", lambda: granted)
        limit_threads()
        return os.environ.get("OMP_NUM_THREADS")

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert told(2) == "7"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert told(64) is None
    assert told(2) == "2"
