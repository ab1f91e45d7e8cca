"""Files in a folder that others empty at the same time, on a disk that may be full or another one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.storage.local import LocalObjects
from app.storage.objects import Objects


def test_a_folder_that_was_removed_in_between_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, replace, asked = LocalObjects(tmp_path), Path.replace, []

    def late(self: Path, target: Path) -> Path:
        asked.append(target)
        if len(asked) < 4:
            target.parent.rmdir()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", late)
    place.write("a/b", b"content")
    assert (place.read("a/b"), len(asked)) == (b"content", 4)


def test_what_cannot_be_placed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Path, target: Path) -> Path:
        raise FileNotFoundError(target)

    monkeypatch.setattr(Path, "replace", never)
    with pytest.raises(FileNotFoundError):
        LocalObjects(tmp_path).write("a/b", b"content")


def test_a_file_of_another_disk_is_copied_and_gone(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    folder = Path(tempfile.mkdtemp(dir=memory))
    try:
        (folder / "file").write_bytes(b"content")
        place = LocalObjects(tmp_path)
        place.put(folder / "file", "a/b")
        assert not (folder / "file").exists()
        assert [(found.key, found.size) for found in place.list("")] == [("a/b", 7)]
    finally:
        shutil.rmtree(folder)


def test_what_was_written_long_ago_is_young_once_it_is_kept(objects: Objects, tmp_path: Path) -> None:
    """A sweep takes what is old and not yet named."""
    file = tmp_path / "file"
    file.write_bytes(b"content")
    os.utime(file, (0, 0))
    objects.put(file, "a/b")
    found = objects.find("a/b")
    assert found is not None
    assert abs(datetime.now(UTC) - found.modified) < timedelta(minutes=5)


def test_a_stream_that_breaks_leaves_nothing(objects: Objects) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError("the line is gone")

    with pytest.raises(OSError, match="the line is gone"):
        objects.put_stream(broken(), "a/b")
    assert list(objects.list("")) == []


def test_a_stream_comes_back_as_it_went(objects: Objects) -> None:
    content = bytes(range(256)) * 2**13 + b"end"
    objects.put_stream(iter([content[:100], content[100:]]), "a/b")
    assert b"".join(objects.stream("a/b")) == content


def test_removing_takes_empty_folders_along_and_leaves_others(tmp_path: Path) -> None:
    place = LocalObjects(tmp_path)
    for key in ("a/b/one", "a/c/two"):
        place.write(key, b"x")
    place.remove("a/b/one")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["c"]
    place.remove("a/c/two")
    assert not (tmp_path / "a").exists()
    assert tmp_path.exists()
