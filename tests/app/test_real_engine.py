"""The service with the real engine: the same bytes as without it, and its own words about bad input."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest

from quant_core.spec import Report

DATA = Path(__file__).parents[2] / "benchmarks" / "data"
RESNET = DATA / "resnet20_cifar10.onnx"
SPEC = {"size": 0.18, "bits": [4, 8], "sensitivity": "gauss_newton", "rounding": "nearest"}
NODES = 200
"""What the service takes; ResNet-20 has fewer."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # the bytes are promised for the same number of threads


@pytest.fixture(scope="module")
def real(make_server: Any) -> Iterator[Any]:
    running = make_server(
        BITWRIGHT_ENGINE="quant_core.pipeline:quantize",
        BITWRIGHT_VALIDATOR="quant_core.pipeline:validate",
        BITWRIGHT_MODEL_NODES=str(NODES),
        **ONE_THREAD,
    )
    yield running
    running.stop()


@pytest.fixture(scope="module")
def few() -> bytes:
    buffer = io.BytesIO()
    with np.load(DATA / "cifar10_calibration.npz") as data:
        np.savez(buffer, input=data["input"][:32], labels=data["labels"][:32])
    return buffer.getvalue()


def _post(real: Any, model: bytes, data: bytes, **spec: Any) -> httpx.Response:
    parts = {"model": ("net.onnx", model), "data": ("few.npz", data)}
    answer: httpx.Response = real.http.post("/quantize", files=parts, data={"spec": json.dumps(spec)})
    return answer


def test_the_service_makes_the_same_bytes_as_the_command_line(real: Any, few: bytes, tmp_path: Path) -> None:
    """Of a model whose weights lie beside it as of one that holds them."""
    size = int(0.18 * RESNET.stat().st_size)
    (tmp_path / "beside").mkdir()
    onnx.save(
        onnx.load(RESNET),
        tmp_path / "beside" / "net.onnx",
        save_as_external_data=True,
        location="deep.bin",
        size_threshold=0,
    )
    files = [
        ("model", ("net.onnx", (tmp_path / "beside" / "net.onnx").read_bytes())),
        ("data", ("few.npz", few)),
        ("files", ("deep.bin", (tmp_path / "beside" / "deep.bin").read_bytes())),
    ]
    answer = real.http.post("/quantize", files=files, data={"spec": json.dumps(SPEC | {"size": size})})
    assert answer.status_code == 202, answer.text
    (tmp_path / "few.npz").write_bytes(few)
    command = [
        "quantize",
        RESNET,
        "--data",
        tmp_path / "few.npz",
        "--out",
        tmp_path / "out",
        "--size",
        f"{size}B",
    ]
    options = ["--bits", "4,8", "--sensitivity", "gauss_newton", "--rounding", "nearest"]
    subprocess.run(
        [sys.executable, "-m", "bitwright", *map(str, command), *options],
        env={**os.environ, **ONE_THREAD},
        check=True,
        capture_output=True,
    )
    job = real.wait_for(answer.json()["id"], "succeeded", "failed")
    assert job["state"] == "succeeded", job["error"]
    served = real.http.get(job["links"]["model"]).content
    assert served == (tmp_path / "out" / "model.onnx").read_bytes()
    report = Report.model_validate(real.http.get(job["links"]["report"]).json())
    assert report.model.quantized_bytes == job["summary"]["quantized_bytes"] == len(served)
    assert report.model.name == "net.onnx"
    assert real.http.get(job["links"]["sensitivity"]).json()["layers"]
    assert real.http.get(job["links"]["pareto"]).json()["points"]
    smaller = real.http.post(f"/jobs/{job['id']}/plans", json={"size": 0.16}).json()
    assert smaller["predicted_bytes"] <= 0.16 * report.model.float_bytes < report.plan.predicted_bytes
    assert [layer["name"] for layer in smaller["layers"]] == [layer.name for layer in report.layers]
    refused = real.http.post(f"/jobs/{job['id']}/plans", json={"size": 0.01})
    assert (refused.status_code, refused.json()["code"]) == (422, "infeasible_budget")
    assert refused.json()["where"] == "body.size"


def test_what_the_checks_refuse_is_named_as_the_spec_was_written(real: Any, few: bytes) -> None:
    for asked, place in (
        ({"size": 0.01}, "spec.size"),
        ({"budget": {"size": 0.01}}, "spec.budget.size"),
        ({"effective_bits": 1.5}, "spec.effective_bits"),
        ({"pin": {"nix*": 8}}, "spec.pin.nix*"),
        ({"exclude": ["fc.weight", "nix"]}, "spec.exclude.1"),
        ({"rules": [{"match": "nix", "min_bits": 4}]}, "spec.rules.0"),
        ({"ties": [["nix", "fc.weight"]]}, "spec.ties"),
        ({"loss_weights": {"nix": 2}}, "spec.loss_weights"),
    ):
        answer = _post(real, RESNET.read_bytes(), few, **asked)
        assert (answer.status_code, answer.json().get("where")) == (422, place), answer.text


@pytest.mark.slow
def test_a_job_takes_over_the_sensitivities_of_another(real: Any, few: bytes) -> None:
    first = _post(real, RESNET.read_bytes(), few, **SPEC).json()["id"]
    assert real.wait_for(first, "succeeded", "failed")["state"] == "succeeded"
    refused = _again(real, first, size=0.14, bits=[4, 8])
    assert (refused.status_code, refused.json()["where"]) == (422, "spec.rounding")
    refused = _again(real, first, **SPEC | {"size": 0.01})
    assert (refused.status_code, refused.json()["code"]) == (422, "infeasible_budget")
    second = _again(real, first, **SPEC | {"size": 0.14})
    assert second.status_code == 202, second.text
    job = real.wait_for(second.json()["id"], "succeeded", "failed")
    assert job["state"] == "succeeded", job["error"]
    tables = [real.http.get(f"/jobs/{one}/files/sensitivity.json").json() for one in (first, job["id"])]
    assert tables[0] == tables[1]
    assert job["summary"]["quantized_bytes"] <= 0.14 * RESNET.stat().st_size
    with real.http.stream("GET", f"/jobs/{job['id']}/events") as events:
        said = [json.loads(line[5:]) for line in events.iter_lines() if line.startswith("data:")]
    probed = [event["message"] for event in said if event.get("stage") == "sensitivity"]
    assert probed == [f"taken from {first}"]
    refused = real.wait_for(
        _again(real, first, **SPEC, loss="squared_error").json()["id"], "succeeded", "failed"
    )
    assert refused["error"]["where"] == "sensitivity.json"
    assert "other loss" in refused["error"]["message"]


@pytest.mark.slow
def test_probes_of_a_killed_worker_are_not_run_again(real: Any, few: bytes) -> None:
    spec = SPEC | {"sensitivity": "pqi", "bits": [4]}
    job = _post(real, RESNET.read_bytes(), few, **spec).json()["id"]
    real.until(lambda: any("checkpoint-probes" in name for name in real.files()), "measurements to be kept")
    (messages,) = real.folder.glob(f"services/*/scratch/{job}-1/messages.jsonl")
    os.kill(json.loads(messages.read_text().splitlines()[0])["pid"], signal.SIGKILL)
    ended = real.wait_for(job, "succeeded", "failed")
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2)
    text = real.http.get(f"/jobs/{job}/events").text
    told = [json.loads(line[5:])["message"] for line in text.splitlines() if line.startswith("data:")]
    (taken,) = [one for one in told if one.endswith("measurements taken from the last attempt")]
    assert int(taken.split()[0]) > 0
    again = _post(real, RESNET.read_bytes(), few, **spec).json()["id"]
    assert real.wait_for(again, "succeeded", "failed")["attempt"] == 1
    for name in ("model", "files/sensitivity.json"):
        assert real.http.get(f"/jobs/{job}/{name}").content == real.http.get(f"/jobs/{again}/{name}").content
    real.until_gone("checkpoint")


def _again(real: Any, job: str, **spec: Any) -> httpx.Response:
    parts = {"from_job": (None, job), "spec": (None, json.dumps(spec))}
    answer: httpx.Response = real.http.post("/quantize", files=parts)
    return answer


def test_a_running_job_is_canceled(real: Any, few: bytes) -> None:
    job = _post(real, RESNET.read_bytes(), few, size=0.18).json()["id"]
    real.until(lambda: real.job(job)["stage"], "the first stage")
    assert real.http.delete(f"/jobs/{job}").status_code == 202
    real.wait_for(job, "canceled")
    real.until_gone(job)


def _model(change: str) -> bytes:
    if change == "truncated":
        return RESNET.read_bytes()[:100_000]
    model = onnx.load(RESNET)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    if change == "nan":
        array = onnx.numpy_helper.to_array(weight).copy()
        array.flat[0] = np.nan
        weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    elif change == "operator":
        model.graph.node[3].op_type = "Einstein"
    elif change in {"missing external", "escaping external"}:
        place = "weights.bin" if change.startswith("missing") else "../../../../../etc/passwd"
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=place)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("truncated", "net.onnx"),
        ("nan", "NaN"),
        ("operator", "Einstein"),
        ("missing external", "weights.bin"),
        ("escaping external", "outside"),
    ],
)
def test_a_bad_model_is_refused_in_the_engines_words(real: Any, few: bytes, change: str, word: str) -> None:
    files = real.files()
    answer = _post(real, _model(change), few, **SPEC)
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert word in f"{problem['where']} {problem['message']}"
    assert problem["remedy"]
    assert str(real.folder) not in answer.text
    assert real.files() == files


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"input": np.full((4, 3, 32, 32), np.nan, np.float32)}, "NaN"),
        ({"picture": np.zeros((4, 3, 32, 32), np.float32)}, "input"),
        ({"input": np.zeros((4, 3, 16, 16), np.float32)}, "input"),
        ({"input": np.array([object()])}, "few.npz"),
    ],
)
def test_bad_samples_are_refused_in_the_engines_words(real: Any, arrays: dict[str, Any], word: str) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    files = real.files()
    answer = _post(real, RESNET.read_bytes(), buffer.getvalue(), **SPEC)
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["code"] == "samples"
    assert word in f"{problem['where']} {problem['message']} {problem['remedy']}"
    assert real.files() == files


@pytest.mark.parametrize(
    ("spec", "code", "word"),
    [
        ({"size": 0.01}, "infeasible_budget", "smallest"),
        ({"exclude": ["nothing"]}, "spec", "nothing"),
    ],
)
def test_a_request_that_does_not_fit_the_model_is_refused(
    real: Any, few: bytes, spec: dict[str, Any], code: str, word: str
) -> None:
    answer = _post(real, RESNET.read_bytes(), few, **spec)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert word in answer.text


def test_a_service_may_take_less_than_the_engine_can(real: Any, few: bytes) -> None:
    chain = " ".join(f"v{i + 1} = Relu(v{i})" for i in range(NODES + 1))
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[n, 2] v0) => (float[n, 2] v{NODES + 1}) {{ {chain} }}'
    model = onnx.parser.parse_model(text).SerializeToString()
    answer = _post(real, model, few)
    assert (answer.status_code, answer.json()["code"]) == (422, "model")
    assert f"{NODES} are allowed" in answer.json()["message"]
    told = real.http.post("/inspect", files={"model": ("m.onnx", model)})
    assert f"{NODES} are allowed" in told.json()["message"]
