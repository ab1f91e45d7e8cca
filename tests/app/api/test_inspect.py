"""`POST /inspect` with the real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

RESNET = Path(__file__).parents[3] / "benchmarks" / "data" / "resnet20_cifar10.onnx"


def test_it_tells_what_a_model_holds_and_keeps_nothing(server: Any) -> None:
    server.settle()
    before = server.files()
    answer = server.http.post("/inspect", files={"model": ("net.onnx", RESNET.read_bytes())})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert len(found["layers"]) == 22
    assert found["name"] == "net.onnx"
    assert found["float_bytes"] == RESNET.stat().st_size
    assert 0 < found["smallest_bytes"] < found["float_bytes"] / 8
    assert server.files() == before


def test_an_upload_can_be_named(server: Any) -> None:
    assert server.http.put("/uploads/inspected", content=RESNET.read_bytes()).status_code == 201
    answer = server.http.post(
        "/inspect", data={"model": "net.onnx=inspected"}, files={"files": ("w.bin", b"x")}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["name"] == "net.onnx"


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ({"data": ("d.npy", b"\x93NUMPY")}, 422, "missing_part"),
        ({"model": ("m.onnx", b"")}, 400, "model"),
        ({"model": ("m.onnx", b"PK\x03\x04 zip")}, 400, "model"),
        ({"model": ("m.onnx", b"\x08\x0a nonsense")}, 422, "model"),
    ],
)
def test_what_is_no_model_is_refused_with_a_remedy(
    server: Any, parts: dict[str, Any], status: int, code: str
) -> None:
    answer = server.http.post("/inspect", files=parts)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["remedy"]


def test_a_spec_is_refused_not_passed_over(server: Any) -> None:
    parts = {"model": ("net.onnx", RESNET.read_bytes()), "spec": (None, '{"bits": [8]}')}
    answer = server.http.post("/inspect", files=parts).json()
    assert (answer["code"], answer["where"]) == ("unexpected_part", "spec")
    assert "nothing else is asked" in answer["remedy"]
