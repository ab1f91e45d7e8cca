"""A service that keeps nothing on its own disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.storage import open_storage
from tests.app.storage.kept_folders import jobs_with_folders


def test_a_job_runs_from_a_bucket_and_its_model_is_fetched_from_there(
    make_server: Callable[..., Any], bucket_url: str, s3_endpoint: str, sample_file: Path, tmp_path: Path
) -> None:
    server = make_server(BITWRIGHT_STORAGE_URL=bucket_url, BITWRIGHT_STORAGE_PUBLIC_ENDPOINT=s3_endpoint)
    content = b"\x08\x0a" + os.urandom(100)
    digest = hashlib.sha256(content).hexdigest()
    assert server.http.put(f"/uploads/{digest}", content=content).status_code == 201
    form = {"model": (None, f"m.onnx={digest}"), "data": ("d.npz", sample_file.read_bytes())}
    job = server.http.post("/quantize", files=form).json()["id"]
    assert server.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
    moved = server.http.get(f"/jobs/{job}/model")
    assert moved.status_code == 307
    assert moved.headers["Location"].startswith(s3_endpoint)
    assert server.http.get(f"/jobs/{job}/model", follow_redirects=True).content == content[::-1]
    tag = f'"{hashlib.sha256(content[::-1]).hexdigest()}"'
    had = server.http.get(f"/jobs/{job}/model", params={"redirect": False}, headers={"If-None-Match": tag})
    assert (had.status_code, (server.folder / "cache").exists()) == (
        304,
        False,
    )  # nothing is fetched for that
    sent = server.http.get(f"/jobs/{job}/model", params={"redirect": False})
    assert (sent.status_code, sent.content) == (200, content[::-1])
    assert server.http.get(f"/jobs/{job}/report").json()["metrics"]["name"] == "top1"
    assert server.http.post(f"/jobs/{job}/plans", json={"size": 0.25}).json()["layers"][0]["bits"] == 4
    assert not (server.folder / "store").exists()
    assert server.http.delete(f"/jobs/{job}").status_code == 204
    assert not jobs_with_folders(open_storage(bucket_url, tmp_path))
    server.stop()
