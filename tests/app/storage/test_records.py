"""Records of uploads: read once each, and again once another service has written them; in a folder and in a bucket."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.storage import Storage, Upload
from app.storage.records import Records

LATER = datetime(2100, 1, 1, tzinfo=UTC)


def _upload(size: int) -> Upload:
    return Upload(sha256="0" * 64, bytes=size, expires=LATER)


def test_each_is_read_once_and_again_when_it_was_written_anew(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, others = Records(storage.objects), Records(storage.objects)
    for number in range(5):
        ours.write(f"uploads/me/{number}.json", _upload(number))
    ours.write("uploads/you/0.json", _upload(100))
    asked: list[str] = []
    read = storage.objects.read

    def counted(key: str) -> bytes | None:
        asked.append(key)
        return read(key)

    monkeypatch.setattr(storage.objects, "read", counted)
    assert sorted(upload.bytes for upload in ours.of("uploads/me/").values()) == [0, 1, 2, 3, 4]
    assert len(asked) == 5
    others.write("uploads/me/2.json", _upload(20))
    others.write("uploads/me/5.json", _upload(5))
    storage.objects.remove("uploads/me/0.json")
    asked.clear()
    found = ours.of("uploads/me/")
    assert sorted(upload.bytes for upload in found.values()) == [1, 3, 4, 5, 20]
    assert sorted(asked) == ["uploads/me/2.json", "uploads/me/5.json"]


def test_what_is_no_record_is_none_and_is_not_read_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(storage.objects)
    storage.objects.write("uploads/me/0.json", b"{")
    assert records.of("uploads/me/") == {}
    assert records.find("uploads/me/0.json") is None
    assert records.find("uploads/me/1.json") is None
    monkeypatch.setattr(storage.objects, "read", lambda _: pytest.fail("it was read again"))
    assert records.of("uploads/me/") == {}
