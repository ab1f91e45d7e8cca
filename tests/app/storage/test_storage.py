"""Folders over a local disk and over a bucket: whole or not there, each content once, swept when nothing names it."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from app.storage import storage as storage_module
from app.storage.local import LocalObjects
from app.storage.objects import Objects
from app.storage.storage import Storage
from tests.app.storage.kept_folders import jobs_with_folders


def _folder(path: Path, **files: bytes) -> Path:
    for name, content in files.items():
        file = path / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return path


def _contents(objects: Objects) -> list[str]:
    return sorted(found.key.rpartition("/")[2] for found in objects.list("contents/"))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_objects_are_written_read_listed_and_removed(objects: Objects, tmp_path: Path) -> None:
    assert objects.read("a/none") is None
    assert objects.find("a/none") is None
    with pytest.raises(FileNotFoundError):
        objects.fetch("a/none", tmp_path / "x")
    objects.write("a/b/one", b"1")
    objects.write("a/two", b"22")
    (tmp_path / "three").write_bytes(b"333")
    objects.put(tmp_path / "three", "a/three")
    assert not (tmp_path / "three").exists()
    found = {item.key: item.size for item in objects.list("a/")}
    assert found == {"a/b/one": 1, "a/two": 2, "a/three": 3}
    assert [item.key for item in objects.list("a/b/")] == ["a/b/one"]
    assert list(objects.list("none/")) == []
    objects.write("a/two", b"2222")
    assert objects.read("a/two") == b"2222"
    for key in ("a/b/one", "a/two", "a/three", "a/none"):
        objects.remove(key)
    assert list(objects.list("a/")) == []


def test_a_folder_comes_back_as_it_was(storage: Storage, tmp_path: Path) -> None:
    source = _folder(tmp_path / "in", model__net=b"net", model__deep__w=b"w", data__d=b"data")
    storage.publish(source, "job/input")
    assert not source.exists()
    storage.fetch("job/input", tmp_path / "all")
    there = [path for path in (tmp_path / "all").rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path / "all").as_posix(): path.read_bytes() for path in there} == {
        "model/net": b"net", "model/deep/w": b"w", "data/d": b"data",
    }  # fmt: skip
    storage.fetch("job/input/model", tmp_path / "part")
    assert sorted(str(p.relative_to(tmp_path / "part")) for p in (tmp_path / "part").rglob("*")) == [
        "deep",
        "deep/w",
        "net",
    ]
    found = storage.find("job/input/model/deep/w")
    assert found is not None
    assert found.read_bytes() == b"w"
    assert storage.find("job/input/model/none") is None
    assert storage.find("job/output/model.onnx") is None
    with pytest.raises(FileNotFoundError):
        storage.fetch("none/input", tmp_path / "none")


def test_a_fetched_file_may_be_changed_without_harm(storage: Storage, tmp_path: Path) -> None:
    storage.publish(_folder(tmp_path / "in", f=b"as it was"), "job/input")
    storage.fetch("job/input", tmp_path / "out")
    assert (tmp_path / "out" / "f").stat().st_nlink == 1
    (tmp_path / "out" / "f").write_bytes(b"changed")
    storage.fetch("job/input", tmp_path / "again")
    assert (tmp_path / "again" / "f").read_bytes() == b"as it was"


def test_the_same_content_is_kept_once(storage: Storage, tmp_path: Path) -> None:
    for job in ("a", "b"):
        storage.publish(_folder(tmp_path / job, model=b"shared", data=job.encode()), f"{job}/input")
    assert _contents(storage.objects) == sorted(map(_digest, (b"shared", b"a", b"b")))
    assert jobs_with_folders(storage) == {"a", "b"}
    storage.remove("a")
    assert jobs_with_folders(storage) == {"b"}
    storage.fetch("b/input", tmp_path / "out")
    assert (tmp_path / "out" / "model").read_bytes() == b"shared"


def test_a_sweep_takes_what_nothing_names_and_is_not_new(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job in ("a", "b"):
        storage.publish(_folder(tmp_path / job, model=b"shared", data=job.encode() * 10), f"{job}/input")
    storage.publish(_folder(tmp_path / "c", made=b"made"), "b/output-1")
    storage.remove("a")
    assert storage.sweep(frozenset()) == (0, 0)  # it could be about to be named
    monkeypatch.setattr(storage_module, "GRACE", timedelta(seconds=-2))
    assert storage.sweep(frozenset([_digest(b"a" * 10)])) == (0, 0)
    assert storage.sweep(frozenset()) == (1, 10)
    assert _contents(storage.objects) == sorted(map(_digest, (b"shared", b"b" * 10, b"made")))
    storage.remove("b/output-1")
    assert storage.sweep(frozenset()) == (1, 4)
    storage.remove("b")
    assert storage.sweep(frozenset())[0] == 2
    assert _contents(storage.objects) == []


def test_content_that_a_sweep_may_have_chosen_is_written_again(tmp_path: Path) -> None:
    storage = Storage(LocalObjects(tmp_path / "store"), tmp_path / "cache")
    storage.publish(_folder(tmp_path / "a", f=b"old"), "a/input")
    path = storage.find("a/input/f")
    assert path is not None
    os.utime(path, (0, 0))
    inode = path.stat().st_ino
    storage.publish(_folder(tmp_path / "b", f=b"old"), "b/input")
    assert (path.stat().st_ino != inode, path.stat().st_mtime > 1) == (True, True)
    storage.publish(_folder(tmp_path / "c", f=b"old"), "c/input")
    young = path.stat().st_ino
    storage.publish(_folder(tmp_path / "d", f=b"old"), "d/input")
    assert path.stat().st_ino == young


def test_a_local_copy_that_was_swept_is_fetched_again(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.storage import open_storage

    storage = open_storage(bucket_url, tmp_path)
    storage.publish(_folder(tmp_path / "in", f=b"result"), "job/output")
    monkeypatch.setattr(storage_module, "GRACE", timedelta(seconds=-2))
    for _ in range(2):
        copy = storage.find("job/output/f")
        assert copy is not None
        assert copy.read_bytes() == b"result"
        storage.sweep(frozenset())
        assert not copy.exists()


def test_a_bucket_gives_addresses_that_need_no_key(bucket_url: str, s3_endpoint: str, tmp_path: Path) -> None:
    from app.storage import open_storage

    storage = open_storage(bucket_url, tmp_path, s3_endpoint)
    storage.publish(_folder(tmp_path / "in", f=b"result"), "job/output")
    assert storage.digest("job/output/f") == _digest(b"result")
    assert storage.digest("job/output/none") is None
    address = storage.link(_digest(b"result"))
    assert address is not None
    assert httpx.get(address, trust_env=False).content == b"result"
    for unreached in (bucket_url, ""):  # no endpoint that clients reach
        assert open_storage(unreached, tmp_path).link(_digest(b"result")) is None


@pytest.mark.parametrize("url", ["ftp://x/y", "s3:///x", "file://host/x", "s3://bucket?colour=red", "folder"])
def test_an_address_that_is_none_is_refused(url: str, tmp_path: Path) -> None:
    from app.storage import StorageUrlError, open_storage

    with pytest.raises(StorageUrlError) as caught:
        open_storage(url, tmp_path)
    assert "s3://bucket" in caught.value.remedy


def test_a_bucket_that_does_not_answer_is_an_error_of_the_system(tmp_path: Path, bucket_url: str) -> None:
    from app.storage import open_storage

    storage = open_storage(bucket_url.replace("s3://b", "s3://c"), tmp_path)
    with pytest.raises(OSError, match=r"object store refused|contents"):
        storage.publish(_folder(tmp_path / "in", f=b"x"), "job/input")
