"""`POST /quantize`: what is taken, and what is refused with nothing left behind."""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

import pytest

from quant_core.spec import Report


def test_a_job_is_accepted_runs_and_leaves_its_results(server: Any) -> None:
    answer = server.post(seed=0, size=0.18, bits=[4, 8], pin={"fc": 8})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/jobs/{job['id']}"
    assert job["state"] == "queued"
    assert job["spec"]["budget"] == {"size": 0.18}
    assert job["spec"]["rules"][0]["pin"] == 8
    ended = server.wait_for(job["id"], "succeeded", "failed")
    assert ended["state"] == "succeeded", ended["error"]
    assert ended["progress"] == 1.0
    assert ended["created"] <= ended["started"] <= ended["finished"]
    assert ended["summary"]["quantized_bytes"] == ended["summary"]["float_bytes"] // 2
    model = server.http.get(ended["links"]["model"])
    assert model.headers["Content-Type"] == "application/octet-stream"
    assert "m.quantized.onnx" in model.headers["Content-Disposition"]
    assert model.content == server_model()[::-1]
    assert not any(name.startswith(("staging", "scratch")) for name in server.files())


def server_model() -> bytes:
    return b"\x08\x0a a small model"


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("parts", "status", "code", "where", "word"),
    [
        ({"model": b""}, 400, "model", "m.onnx", "empty"),
        ({"model": pickle.dumps({"a": 1}, protocol=2)}, 400, "model", "m.onnx", "pickle"),
        ({"model": pickle.dumps({"a": 1}, protocol=5)}, 400, "model", "m.onnx", "pickle"),
        ({"model": _zip()}, 400, "model", "m.onnx", "such as numpy's .npz"),
        ({"model": b"plain text"}, 422, "model", "m.onnx", "not an ONNX"),
        ({"model": b"crash"}, 422, "model", "m.onnx", "crashed"),
        ({"model": b"external weights.bin"}, 422, "model", "weights.bin", "external"),
        ({"data": b""}, 400, "samples", "d.npz", "empty"),
        ({"data": b"1,2,3\n"}, 400, "samples", "d.npz", "neither"),
        ({"bits": [7]}, 422, "spec", "spec.bits", "7 is not"),
        ({"size": -1}, 422, "spec", "spec.size", "-1 is too small; write more than 0"),
        ({"exclude": 7}, 422, "spec", "spec.exclude", "7 cannot be used here; write layer names or globs"),
        ({"ties": ["residual"]}, 422, "spec", "spec.ties.0", '[["conv1", "conv2"], ["residual"]]'),
        ({"sise": 0.2}, 422, "spec", "spec.sise", "did you mean 'size'"),
        ({"device": "cuda:5"}, 422, "spec", "spec.device", "computes on cpu"),
    ],
)
def test_bad_input_is_refused_with_advice_and_leaves_nothing(
    server: Any, parts: dict[str, Any], status: int, code: str, where: str, word: str
) -> None:
    server.settle()
    files = server.files()
    jobs = server.http.get("/jobs").json()["total"]
    answer = server.post(**parts)
    problem = answer.json()
    assert answer.status_code == status, problem
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem["code"] == code
    assert problem["where"] == where
    assert word in problem["message"]
    assert problem["remedy"]
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert server.files() == files
    assert server.http.get("/jobs").json()["total"] == jobs


@pytest.mark.parametrize("spec", ["{", "[]", '"0.2"', "nul", '{"seed": 1e400}', "[" * 5000])
def test_a_spec_that_is_not_an_object_is_refused(server: Any, spec: str) -> None:
    answer = server.http.post(
        "/quantize",
        files={"model": ("m.onnx", server_model()), "data": ("d.npz", b"PK\x03\x04")},
        data={"spec": spec},
    )
    assert answer.status_code == 422
    assert answer.json()["where"].startswith("spec")


@pytest.mark.parametrize(
    ("spec", "name"), [('{"size": 0.1, "size": 0.3}', "size"), ('{"pin": {"fc": 8, "fc": 4}}', "fc")]
)
def test_a_field_that_is_there_twice_is_named(server: Any, spec: str, name: str) -> None:
    answer = server.http.post(
        "/quantize",
        files={"model": ("m.onnx", server_model()), "data": ("d.npz", b"PK\x03\x04")},
        data={"spec": spec},
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "spec")
    assert answer.json()["message"].startswith(f"The field {name!r} is there twice")


@pytest.mark.parametrize("missing", ["model", "data"])
def test_a_missing_part_is_named(server: Any, missing: str) -> None:
    parts = {"model": ("m.onnx", server_model()), "data": ("d.npz", b"PK\x03\x04")}
    del parts[missing]
    answer = server.http.post("/quantize", files=parts)
    assert (answer.status_code, answer.json()["where"]) == (422, missing)


@pytest.mark.parametrize(
    "name",
    [
        "../weights.bin",
        "/etc/passwd",
        "a/../../b",
        "a\\b",
        "C:x",
        "",
        ".",
        "a//b",
        "./a",
        "m.onnx",
        "m.onnx/x",
        "a" * 300,
    ],
)
def test_external_data_may_not_leave_its_folder(server: Any, name: str) -> None:
    server.settle()
    files = server.files()
    answer = server.http.post(
        "/quantize",
        files=[
            ("model", ("m.onnx", b"external weights.bin")),
            ("data", ("d.npz", b"PK\x03\x04")),
            ("files", (name, b"w")),
        ],
    )
    # An empty file name makes the part no file at all, but the name of an upload; it is refused all the same.
    assert answer.status_code == (400 if name else 404), answer.text
    assert server.files() == files


def test_what_is_asked_outside_of_the_spec_is_refused_where_it_would_be_passed_over(server: Any) -> None:
    form = {"model": ("m.onnx", b"\x08 m"), "data": ("s.npz", b"PK\x03\x04")}
    before = server.http.get("/jobs").json()["total"]
    part = server.http.post("/quantize", files=form, data={"size": "0.1"})
    assert (part.status_code, part.json()["where"]) == (400, "size")
    assert "goes into `spec`" in part.json()["remedy"]
    for route in ("/quantize", "/analyze"):
        query = server.http.post(f"{route}?tag=a&size=0.1", files=form)
        assert (query.status_code, query.json()["where"]) == (422, "query.size")
        assert "goes into the form's `spec`" in query.json()["remedy"]
    assert server.http.get("/jobs").json()["total"] == before


@pytest.mark.parametrize(
    ("method", "address", "near"),
    [
        ("GET", "/jobs?statte=failed", "state"),
        ("DELETE", "/jobs/{job}?cancelonly=true", "cancel_only"),
        ("GET", "/jobs/{job}/model?redirects=false", "redirect"),
        ("GET", "/jobs/{job}/files/costs.json?redirects=false", "redirect"),
        ("GET", "/uploads?limits=3", "limit"),
    ],
)
def test_a_parameter_that_is_not_known_is_refused_with_the_one_that_may_be_meant(
    server: Any, method: str, address: str, near: str
) -> None:
    job = server.submit()
    server.wait_for(job, "succeeded")
    answer = server.http.request(method, address.format(job=job))
    assert answer.status_code == 422
    assert answer.json()["message"].endswith(f"did you mean {near!r}?")
    assert server.http.get(f"/jobs/{job}").status_code == 200


def test_every_route_that_has_parameters_refuses_others(server: Any) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    answers = {
        (
            method,
            path,
            any(told["in"] == "query" for told in route.get("parameters", ())),
        ): server.http.request(
            method, path.format(job_id="j", name="n", upload_id="u"), params={"nonsense": 1}
        )
        for path, routes in paths.items()
        for method, route in routes.items()
        if method != "head" and path != "/jobs/{job_id}/events"
    }
    assert {key for key, answer in answers.items() if "query.nonsense" in answer.text} == {
        key for key in answers if key[2]
    }


def test_a_parameter_that_is_there_twice_is_named(server: Any) -> None:
    answer = server.http.get("/jobs?state=failed&state=queued&limit=1&limit=5")
    assert (answer.status_code, answer.json()["where"]) == (422, "query.limit")
    assert answer.json()["message"] == "The parameter 'limit' is there 2 times, and only one can hold."
    assert server.http.get("/jobs?state=failed&state=queued&limit=1").is_success


def test_a_spec_may_begin_with_a_byte_order_mark(server: Any) -> None:
    form = {"model": ("m.onnx", b"\x08 m"), "data": ("s.npz", b"PK\x03\x04")}
    spec = {"spec": ("spec.json", b'\xef\xbb\xbf{"size": 0.3}')}  # as PowerShell writes files
    answer = server.http.post("/quantize", files=form | spec)
    assert (answer.status_code, answer.json()["spec"]["budget"]["size"]) == (202, 0.3)


def test_external_data_lies_beside_the_model(server: Any) -> None:
    answer = server.http.post(
        "/quantize",
        files=[
            ("model", ("m.onnx", b"external weights.bin deep/more.bin")),
            ("data", ("d.npz", b"PK\x03\x04")),
            ("files", ("weights.bin", b"w" * 10)),
            ("files", ("deep/more.bin", b"v" * 10)),
        ],
    )
    assert answer.status_code == 202, answer.text
    assert server.wait_for(answer.json()["id"], "succeeded", "failed")["state"] == "succeeded"


@pytest.mark.parametrize(
    ("filename", "content", "expected"),
    [
        ("d.npz", b"PK\x03\x04", "d.npz"),
        ("samples", b"PK\x03\x04", "samples.npz"),
        ("x.npy", b"\x93NUMPY", "x.npy"),
        ("x.bin", b"\x93NUMPY", "x.bin.npy"),
        ("wrong.npz", b"\x93NUMPY", "wrong.npy"),
    ],
)
def test_samples_keep_the_suffix_of_their_content(
    server: Any, filename: str, content: bytes, expected: str
) -> None:
    answer = server.http.post(
        "/quantize", files={"model": ("m.onnx", server_model()), "data": (filename, content)}
    )
    assert answer.status_code == 202, answer.text
    assert answer.json()["data"] == expected
    assert server.wait_for(answer.json()["id"], "succeeded", "failed")["state"] == "succeeded"


def test_names_beyond_ascii_arrive_in_either_form(server: Any) -> None:
    body = (
        '--b\r\nContent-Disposition: form-data; name="model"; filename="modèle.onnx"\r\n\r\nexternal gewichte-ä.bin'
        "\r\n--b\r\nContent-Disposition: form-data; name=\"files\"; filename*=utf-8''gewichte-%C3%A4.bin\r\n\r\nw"
        '\r\n--b\r\nContent-Disposition: form-data; name="data"; filename="d.npz"\r\n\r\nPK\x03\x04\r\n--b--\r\n'
    ).encode()
    answer = server.http.post(
        "/quantize", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert answer.status_code == 202, answer.text
    assert answer.json()["model"] == "modèle.onnx"
    server.wait_for(answer.json()["id"], "succeeded")


def test_a_body_that_is_not_multipart_is_refused(server: Any) -> None:
    assert server.http.post("/quantize", json={}).status_code == 415
    endless = {"Content-Type": f"multipart/form-data; boundary={'b' * 5000}"}
    assert server.http.post("/quantize", content=b"--b--", headers=endless).status_code == 400
    cut = server.http.post(
        "/quantize",
        content=b'--b\r\nContent-Disposition: form-data; name="model"; filename="m"\r\n\r\nabc',
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )
    assert (cut.status_code, cut.json()["code"]) == (400, "malformed_body")
    assert not any("staging" in name for name in server.files())


def test_openapi_describes_every_route_with_its_errors(server: Any) -> None:
    document = server.http.get("/openapi.json").json()
    paths = document["paths"]
    assert set(paths) == {
        "/quantize", "/analyze", "/jobs", "/jobs/{job_id}", "/jobs/{job_id}/events", "/jobs/{job_id}/model",
        "/jobs/{job_id}/report", "/jobs/{job_id}/files/{name}", "/jobs/{job_id}/plans", "/healthz",
        "/uploads", "/uploads/{upload_id}", "/uploads/{upload_id}/parts", "/uploads/{upload_id}/complete",
        "/readyz", "/metrics", "/inspect",
    }  # fmt: skip
    schemas = document["components"]["schemas"]
    named = {"Problem", "JobView", "SensitivityTable", "Report"}
    # As they are sent, short words included, and as they are given back.
    named |= {f"{spec}-{way}" for spec in ("QuantizeSpec", "AnalyzeSpec") for way in ("Input", "Output")}
    assert named <= set(schemas)
    assert "example" in schemas["JobView"]
    body = paths["/quantize"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(body["properties"]) == {"model", "data", "spec", "files", "from_job"}
    assert {"202", "400", "413", "422"} <= set(paths["/quantize"]["post"]["responses"])
    _references_resolve(document, document)
    assert "HTTPValidationError" not in str(document)  # errors are Problems, all of them
    assert "example" in schemas["JobPage"]
    of_report = paths["/jobs/{job_id}/report"]["get"]["responses"]["200"]["content"]["application/json"]
    assert Report.model_validate(of_report["example"]).layers[0].weight_bits in {2, 3, 4, 5, 6, 8}
    for path, operations in paths.items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                assert "example" in parameter or "{job_id}" not in path or parameter["name"] != "job_id"
    assert server.http.get("/docs").is_success


def _references_resolve(node: Any, document: Any) -> None:
    if isinstance(node, dict):
        if "$ref" in node:
            target = document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
        for value in node.values():
            _references_resolve(value, document)
    elif isinstance(node, list):
        for value in node:
            _references_resolve(value, document)


def _from_job(server: Any, job: str, route: str = "/quantize", **more: Any) -> tuple[int, str]:
    answer = server.http.post(route, files={"from_job": (None, job), "spec": (None, "{}")} | more)
    problem = answer.json()
    assert problem["remedy"]
    return answer.status_code, problem["code"]


def test_a_job_that_cannot_be_taken_over_is_refused_and_leaves_nothing(server: Any) -> None:
    own = b"PK\x03\x04 of this job alone"
    done, failed, running = server.submit(data=own), server.submit(seed=5), server.submit(seed=1)
    server.wait_for(failed, "failed")
    server.wait_for(done, "succeeded")
    server.worker(running)
    server.until_gone(f"/scratch/{done}")
    files = server.files()
    assert _from_job(server, "../../etc") == (404, "no_such_job")
    assert _from_job(server, failed) == (409, "no_result")
    assert _from_job(server, running) == (409, "not_finished")
    assert _from_job(server, done, data=("d.npz", b"PK\x03\x04")) == (400, "unexpected_part")
    assert _from_job(server, done, "/analyze") == (400, "unexpected_part")
    assert [name for name in server.files() - files if running not in name] == []
    server.stored(done, "input")["data/d.npz"].unlink()
    assert _from_job(server, done) == (404, "no_such_file")
    (server.folder / "store" / "folders" / done / "output-1.json").unlink()
    assert _from_job(server, done) == (404, "no_such_file")
    assert not any("staging" in name for name in server.files())
    server.http.delete(f"/jobs/{running}")
    server.wait_for(running, "canceled")


def test_a_job_asks_for_the_sensitivities_that_it_takes_over(server: Any) -> None:
    first = server.submit(sensitivity="fisher", seed=20)
    server.wait_for(first, "succeeded")

    def again(spec: str) -> Any:
        return server.http.post("/quantize", files={"from_job": (None, first), "spec": (None, spec)})

    for asked, field in (('{"sensitivity": "hawq"}', "sensitivity"), ('{"seed": 21}', "seed")):
        refused = again(asked)
        assert refused.status_code == 422
        assert refused.json()["where"] == f"spec.{field}"
        assert f"Leave {field} out" in refused.json()["remedy"]
    for asked in ('{"size": 0.3}', '{"size": 0.3, "sensitivity": "fisher", "seed": 20}'):
        taken = again(asked).json()
        assert (taken["spec"]["sensitivity"], taken["spec"]["seed"]) == ("fisher", 20)
        assert server.wait_for(taken["id"], "succeeded")
