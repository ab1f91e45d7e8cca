"""`POST /analyze`: a job like any other, whose result is a table."""

from __future__ import annotations

import json
from typing import Any

import httpx

from quant_core.spec import SensitivityTable
from tests.app.service import MODEL, samples


def post(server: Any, **spec: Any) -> httpx.Response:
    parts = {"model": ("m.onnx", MODEL), "data": ("d.npz", samples())}
    answer: httpx.Response = server.http.post("/analyze", files=parts, data={"spec": json.dumps(spec)})
    return answer


def test_an_analysis_is_a_job_with_a_table(server: Any) -> None:
    answer = post(server, sensitivity="hutch++", bits=[2, 4], seed=9, activations=True)
    assert answer.status_code == 202, answer.text
    queued = answer.json()
    assert answer.headers["Location"] == f"/jobs/{queued['id']}"
    assert queued["kind"] == "analyze"
    assert queued["spec"]["activations"] is True
    job = server.wait_for(queued["id"], "succeeded", "failed")
    assert (job["state"], job["progress"], job["summary"]) == ("succeeded", 1.0, None)
    assert [job["links"][name] for name in ("model", "report", "pareto")] == [None] * 3
    table = SensitivityTable.model_validate(server.http.get(job["links"]["sensitivity"]).json())
    assert (table.method, table.seed) == ("hutch++", 9)
    assert server.http.get(f"/jobs/{job['id']}/files/interactions.npz").content == b"PK pairs"
    missing = server.http.get(f"/jobs/{job['id']}/model")
    assert (missing.status_code, missing.json()["code"]) == (404, "no_such_file")
    listed = {item["id"]: item["kind"] for item in server.http.get("/jobs").json()["jobs"]}
    assert listed[job["id"]] == "analyze"


def test_words_of_the_other_request_are_refused(server: Any) -> None:
    answer = post(server, target="portable")
    assert answer.status_code == 422
    assert answer.json()["where"] == "spec.target"
    answer = server.post(activations=True)
    assert answer.status_code == 422
    assert answer.json()["where"] == "spec.activations"
    assert post(server, sensitivity="orm").status_code == 202
    answer = server.post(sensitivity="orm")
    assert answer.status_code == 422
    assert "analyze" in answer.json()["message"]
