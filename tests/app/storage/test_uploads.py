"""Uploads over a folder: whose they are, what they hold, how long they live, and what goes with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from app.storage import Storage, Uploads, file_digest, open_storage
from app.storage import storage as storage_module

HOUR = timedelta(hours=1)
OVER = timedelta(seconds=-1)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage("", tmp_path)


@pytest.fixture
def living(storage: Storage, tmp_path: Path) -> Callable[[timedelta], Uploads]:
    """The same uploads as a service sees them that keeps them so long."""
    return lambda lifetime: Uploads(storage, tmp_path / "uploads", lifetime)


def _send(uploads: Uploads, name: str, content: bytes, owner: str = "me") -> str:
    file = uploads.partial(owner, name)
    file.write_bytes(content)
    return uploads.complete(owner, name, file_digest(file)).sha256


def _contents(storage: Storage) -> int:
    return len(tuple(storage.objects.list("contents/")))


def test_each_owner_sees_what_is_its_own(living: Callable[[timedelta], Uploads]) -> None:
    uploads = living(HOUR)
    for owner in ("a", "a/b", "../a", "ä"):
        _send(uploads, "net", owner.encode(), owner)
    for owner in ("a", "a/b", "../a", "ä"):
        assert list(uploads.of(owner)) == ["net"]
        assert uploads.used(owner, besides="other") == len(owner.encode())
    assert uploads.of("b") == {}
    assert uploads.find("a", "b/net") is None
    assert uploads.find("a", "../a/net") is None


def test_one_whose_time_is_over_is_neither_found_nor_listed_nor_kept(
    storage: Storage, living: Callable[[timedelta], Uploads], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "GRACE", timedelta(seconds=-2))
    _send(living(OVER), "old", b"old")
    _send(living(HOUR), "new", b"new")
    uploads = living(HOUR)
    assert uploads.find("me", "old") is None
    assert uploads.take("me", "old", tmp_path / "copy") is None
    assert list(uploads.of("me")) == ["new"]
    assert uploads.sweep() == (1, 3)
    assert uploads.used("me", besides="other") == 3
    assert uploads.find("me", "new") is not None


def test_the_one_used_last_comes_first_and_lives_on(
    living: Callable[[timedelta], Uploads], tmp_path: Path
) -> None:
    uploads = living(HOUR)
    for name in ("one", "two"):
        _send(uploads, name, name.encode())
    assert list(uploads.of("me")) == ["two", "one"]
    before = uploads.find("me", "one")
    assert before is not None
    taken = living(2 * HOUR).take("me", "one", tmp_path / "deep" / "copy")
    assert taken == uploads.find("me", "one")
    assert taken is not None
    assert taken.expires > before.expires + HOUR / 2
    assert (tmp_path / "deep" / "copy").read_bytes() == b"one"
    assert list(uploads.of("me")) == ["one", "two"]


def test_content_that_is_gone_is_not_taken(
    storage: Storage, living: Callable[[timedelta], Uploads], tmp_path: Path
) -> None:
    digest = _send(living(HOUR), "net", b"net")
    storage.objects.remove(f"contents/{digest[:2]}/{digest}")
    assert living(HOUR).take("me", "net", tmp_path / "copy") is None


def test_a_name_sent_anew_is_none_and_a_digest_sent_again_is_what_it_was(
    living: Callable[[timedelta], Uploads],
) -> None:
    uploads = living(HOUR)
    digest = _send(uploads, "net", b"net")
    _send(uploads, digest, b"net")
    for name in ("net", digest):
        uploads.partial("me", name).write_bytes(b"n")
    assert uploads.find("me", "net") is None
    assert uploads.find("me", digest) is not None
    assert list(uploads.of("me")) == [digest]


def test_what_is_used_counts_whole_and_half_ones_but_for_the_one_asked_about(
    living: Callable[[timedelta], Uploads],
) -> None:
    uploads = living(HOUR)
    _send(uploads, "whole", b"12345")
    uploads.partial("me", "half").write_bytes(b"12")
    uploads.partial("you", "half").write_bytes(b"123456789")
    used = {name: uploads.used("me", besides=name) for name in ("other", "whole", "half")}
    assert used == {"other": 7, "whole": 2, "half": 5}


@pytest.mark.parametrize("whole", [True, False])
def test_a_removed_one_leaves_nothing(living: Callable[[timedelta], Uploads], whole: bool) -> None:
    uploads = living(HOUR)
    assert not uploads.remove("me", "net")
    if whole:
        _send(uploads, "net", b"net")
    else:
        uploads.partial("me", "net").write_bytes(b"n")
    assert uploads.remove("me", "net")
    assert not uploads.remove("me", "net")
    assert uploads.used("me", besides="other") == 0
    assert uploads.begun("me", "net") is None


def test_a_sweep_takes_half_ones_that_nobody_went_on_with(living: Callable[[timedelta], Uploads]) -> None:
    uploads = living(HOUR)
    for name, seconds in (("left", 3700), ("going", 3500)):
        file = uploads.partial("me", name)
        file.write_bytes(b"half")
        moment = file.stat().st_mtime - seconds
        os.utime(file, (moment, moment))
    uploads.sweep()
    assert [uploads.begun("me", name) for name in ("left", "going")] == [None, 4]


def test_a_record_that_cannot_be_read_is_no_upload_and_goes(
    storage: Storage, living: Callable[[timedelta], Uploads], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "GRACE", timedelta(seconds=-2))
    uploads = living(HOUR)
    _send(uploads, "net", b"net")
    storage.objects.write("uploads/me/net.json", b'{"sha256": 1')
    assert uploads.find("me", "net") is None
    assert uploads.of("me") == {}
    assert uploads.used("me", besides="other") == 0
    assert uploads.sweep() == (1, 3)
    assert (_contents(storage), list(storage.objects.list("uploads/"))) == (0, [])
