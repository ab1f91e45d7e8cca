"""What docker-compose.yml composes as plain processes on loopback: PostgreSQL, an S3 store, two services, a job."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DATA = ROOT / "benchmarks" / "data"
ENGINE = {
    "BITWRIGHT_ENGINE": "quant_core.pipeline:quantize",
    "BITWRIGHT_VALIDATOR": "quant_core.pipeline:validate",
    "BITWRIGHT_ANALYZER": "quant_core.analysis:analyze",
    "BITWRIGHT_ANALYSIS_VALIDATOR": "quant_core.analysis:validate",
}


@pytest.fixture
def composed(fresh_postgresql: Callable[[], str], bucket_url: str) -> dict[str, str]:
    """The environment of `api`, with the addresses of loopback for those of the inner network."""
    composition = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    environment = {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))
        for name, value in composition["services"]["api"]["environment"].items()
    }
    found = re.search(r"endpoint=([^&]+)", bucket_url)
    assert found is not None
    assert re.fullmatch(
        r"postgresql://bitwright:\w+@database/bitwright", environment["BITWRIGHT_DATABASE_URL"]
    )
    environment["BITWRIGHT_DATABASE_URL"] = fresh_postgresql()
    environment["BITWRIGHT_STORAGE_URL"] = bucket_url
    environment["AWS_ACCESS_KEY_ID"] = os.environ["AWS_ACCESS_KEY_ID"]
    environment["AWS_SECRET_ACCESS_KEY"] = os.environ["AWS_SECRET_ACCESS_KEY"]
    environment["BITWRIGHT_KEYS"] = (
        "on"  # what `auto` comes to in a container, which listens on every address
    )
    return environment | ENGINE


@pytest.fixture
def client(composed: dict[str, str], tmp_path: Path) -> Iterator[Callable[[str], httpx.Client]]:
    """Makes clients of a service with one key, made by the command that compose's first lines tell."""
    made = subprocess.run(
        [
            sys.executable,
            "-m",
            "bitwright",
            "admin",
            "keys",
            "create",
            "me",
            "--data-dir",
            str(tmp_path / "admin"),
        ],
        env={**os.environ, **composed},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    clients: list[httpx.Client] = []

    def make(url: str) -> httpx.Client:
        clients.append(httpx.Client(base_url=url, headers=headers, timeout=600, trust_env=False))
        return clients[-1]

    yield make
    for one in clients:
        one.close()


def test_a_real_job_sent_to_one_service_is_fetched_from_another(
    make_service: Callable[..., Any], composed: dict[str, str], client: Callable[[str], httpx.Client]
) -> None:
    one, two = make_service(**composed), make_service(**composed)
    here, there = client(one.url), client(two.url)
    assert one.http.get("/jobs").status_code == 401
    model = (DATA / "resnet20_cifar10.onnx").read_bytes()
    samples = io.BytesIO()
    with np.load(DATA / "cifar10_calibration.npz") as full:
        np.savez(samples, input=full["input"][:48], labels=full["labels"][:48])
    assert here.put("/uploads/resnet20.onnx", content=model).status_code == 201
    sent = there.post(
        "/quantize",
        files={"model": (None, "resnet20.onnx"), "data": ("d.npz", samples.getvalue())},
        data={"spec": '{"size": 0.25, "bits": [4, 8]}'},
    )
    assert sent.status_code == 202, sent.text
    job = f"/jobs/{sent.json()['id']}"
    two.until(lambda: here.get(job).json()["state"] in {"succeeded", "failed"}, "the job to end")
    ended = here.get(job).json()
    assert ended["error"] is None
    for reader in (here, there):
        quantized = reader.get(f"{job}/model", follow_redirects=True).content
        assert len(quantized) == ended["summary"]["quantized_bytes"] <= 0.25 * len(model)
        session = onnxruntime.InferenceSession(quantized, providers=["CPUExecutionProvider"])
        assert session.get_inputs()[0].name == "input"
    assert not (one.folder / "bitwright.sqlite").exists()
    assert not (one.folder / "store").exists()
