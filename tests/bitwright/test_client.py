"""The client against a real service."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright import (
    AnalyzeSpec,
    Client,
    ConflictError,
    InvalidRequestError,
    JobCanceledError,
    JobFailedError,
    JobInfo,
    NotFoundError,
    QuantizeSpec,
    Report,
    ServiceUnreachableError,
    WaitTimeoutError,
)
from bitwright.operations import follow
from quant_core.spec import RUNNING


def test_the_main_path(server: Any, model_file: Path, sample_file: Path, tmp_path: Path) -> None:
    seen: list[JobInfo] = []
    with Client(server.url) as client:
        job = client.quantize(
            model_file, data=sample_file, size=0.18, bits=[4, 8], pin={"fc": 8}, exclude="stem*"
        )
        assert job.info.spec.budget.size == 0.18
        assert job.info.spec.weight_bits == (4, 8)
        assert [rule.match for rule in job.info.spec.rules] == ["fc", "stem*"]
        assert job.wait(on_progress=seen.append) is job
        assert job.state == "succeeded"
        assert job.info.summary is not None
        assert job.info.summary.ratio == 0.5
        assert isinstance(job.report(), Report)
        assert job.report().metrics.quantized == 0.89
        folder = job.download(tmp_path / "out")
        assert sorted(path.name for path in folder.iterdir()) == [
            "costs.json", "model.onnx", "pareto.json", "report.html", "report.json", "sensitivity.json",
        ]  # fmt: skip
        assert (folder / "model.onnx").read_bytes() == model_file.read_bytes()[::-1]
        assert Report.model_validate_json((folder / "report.json").read_text()) == job.report()
        assert (folder / "report.html").read_text().startswith("<!doctype html>")
        assert job.plan(size=0.25).bits == {"fc": 4}  # 50 bytes beside the weight, 100 weights
        assert job.plan(pin={"fc": 2}, bops="1M").bits == {"fc": 2}
        with pytest.raises(InvalidRequestError, match="smallest reachable file is 75 bytes"):
            job.plan(size=0.12)
        found = client.jobs.get(job.id)
        assert found.info == job.refresh().info
        assert job.id in [listed.id for listed in client.jobs.list(state="succeeded")]
        assert [listed.id for listed in client.jobs.list(text=job.id.upper())] == [job.id]
        assert client.health().devices[0].name == "cpu"
        job.delete()
        with pytest.raises(NotFoundError) as caught:
            client.jobs.get(job.id)
        assert caught.value.request_id
        assert caught.value.status == 404
    progress = [info.progress for info in seen]
    assert progress == sorted(progress)
    assert seen[-1].ended


def test_a_job_is_quantized_again_without_its_files(
    server: Any, model_file: Path, sample_file: Path, tmp_path: Path
) -> None:
    with Client(server.url) as client:
        first = client.quantize(
            model_file, data=sample_file, size=0.18, bits=[4, 8], pin={"fc": 8}, seed=70
        ).wait()
        busy = client.quantize(model_file, data=sample_file, seed=1)
        again = first.quantize(size=0.3, exclude="stem*")
        spec = again.info.spec
        assert isinstance(spec, QuantizeSpec)
        assert (spec.budget.size, spec.budget.bops, spec.weight_bits, spec.seed) == (0.3, None, (4, 8), 70)
        assert [rule.match for rule in spec.rules] == ["fc", "stem*"]
        assert first.quantize(bits="2,4").info.spec.weight_bits == (2, 4)
        with pytest.raises(ConflictError, match="no sensitivity"):
            busy.quantize(size=0.2)
        with pytest.raises(InvalidRequestError, match="7 is not a supported"):
            first.quantize(bits=[7])
        first.delete()  # the new job has what it needs
        with pytest.raises(NotFoundError, match="no job of this id"):
            first.quantize(size=0.2)
        busy.cancel()
        again.wait()
        with server.http.stream("GET", f"/jobs/{again.id}/events") as events:
            assert f"{first.id}: sensitivity.json" in "".join(events.iter_text())
        assert (again.info.model, again.info.data) == (first.info.model, first.info.data)
        folder = again.download(tmp_path / "out")
        assert (folder / "model.onnx").read_bytes() == model_file.read_bytes()[::-1]
        third = again.quantize(size=0.2).wait()  # and so on from job to job
        stored = [name for name in server.stored(third.id, "input") if name.startswith("earlier/")]
        assert stored == [f"earlier/{again.id}/sensitivity.json"]
        analysis = client.analyze(model_file, data=sample_file, bits="2,4", seed=80).wait()
        from_analysis = analysis.quantize(size=0.2).wait().info.spec
        assert (from_analysis.weight_bits, from_analysis.seed) == ((2, 4), 80)


@pytest.mark.parametrize("kind", ["array", "arrays"])
def test_samples_may_be_arrays(server: Any, model_file: Path, kind: str) -> None:
    array = np.ones((4, 3), np.float32)
    data: Any = array if kind == "array" else {"input": array, "file": array, "labels": np.zeros(4, np.int64)}
    with Client(server.url) as client:
        job = client.quantize(model_file, data=data).wait()
        assert job.info.data == ("samples.npy" if kind == "array" else "samples.npz")
    stored = server.stored(job.id, "input")[f"data/{job.info.data}"]
    loaded = np.load(stored)
    if kind == "array":
        np.testing.assert_array_equal(loaded, array)
    else:
        assert sorted(loaded.files) == ["file", "input", "labels"]
        np.testing.assert_array_equal(loaded["file"], array)
        loaded.close()


def test_an_analysis_gives_a_table_and_what_belongs_to_pairs(
    server: Any, model_file: Path, sample_file: Path, tmp_path: Path
) -> None:
    with Client(server.url) as client:
        job = client.analyze(model_file, data=sample_file, sensitivity="interaction", bits="2,4", seed=3)
        assert job.info.kind == "analyze"
        assert isinstance(job.info.spec, AnalyzeSpec)
        assert job.wait().info.summary is None
        assert (job.sensitivities().method, job.sensitivities().seed) == ("interaction", 3)
        folder = job.download(tmp_path / "out")
        assert {path.name for path in folder.iterdir()} == {
            "interactions.npz",
            "sensitivity.json",
            "costs.json",
        }
        assert client.jobs.get(job.id).info == job.refresh().info
        plan = client.analyze(model_file, data=sample_file).wait().plan(size=110)
        assert plan.bits == {"fc": 4}  # a base of 50 bytes, and 25, 50 or 100 of its weight
        with pytest.raises(InvalidRequestError, match="hutch"):
            client.analyze(model_file, data=sample_file, sensitivity="magic")  # type: ignore[arg-type]


def test_external_data_travels_with_the_model(server: Any, sample_file: Path, tmp_path: Path) -> None:
    import onnx

    weight = onnx.numpy_helper.from_array(np.zeros(8, np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="deep/w.bin")
    graph = onnx.helper.make_graph([], "g", [], [], [weight])
    model = tmp_path / "big.onnx"
    model.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "w.bin").write_bytes(bytes(32))
    with Client(server.url) as client:
        job = client.quantize(model, data=sample_file).wait()
    assert server.stored(job.id, "input")["model/deep/w.bin"].read_bytes() == bytes(32)


def test_refusals_say_what_to_do(server: Any, model_file: Path, sample_file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"text")
    with Client(server.url) as client:
        with pytest.raises(InvalidRequestError) as caught:
            client.quantize(bad, data=sample_file)
        error = caught.value
        assert (error.code, error.where, error.remedy, error.status) == (
            "model",
            "bad.onnx",
            "Export one.",
            422,
        )
        assert error.request_id in str(error)
        with pytest.raises(InvalidRequestError, match="7 is not a supported"):
            client.quantize(model_file, data=sample_file, bits=[7])
        with pytest.raises(InvalidRequestError, match="no such file"):
            client.quantize(tmp_path / "none.onnx", data=sample_file)
        with pytest.raises(InvalidRequestError, match="Both spec"):
            client.quantize(model_file, data=sample_file, size=0.2, spec=QuantizeSpec())


def test_a_failed_job_raises_with_its_remedy(server: Any, model_file: Path, sample_file: Path) -> None:
    with Client(server.url) as client:
        job = client.quantize(model_file, data=sample_file, seed=5)
        with pytest.raises(JobFailedError) as caught:
            job.wait()
        assert caught.value.code == "infeasible_budget"
        assert caught.value.remedy == "Ask for at least 1234 bytes."
        assert caught.value.job_id == job.id
        with pytest.raises(ConflictError):
            job.report()
        with pytest.raises(ConflictError):
            job.cancel()


def test_waiting_can_be_limited_and_the_job_canceled(
    server: Any, model_file: Path, sample_file: Path
) -> None:
    with Client(server.url) as client:
        job = client.quantize(model_file, data=sample_file, seed=1)
        started = time.monotonic()
        with pytest.raises(WaitTimeoutError, match=r"still \w+ after 1 seconds"):
            job.wait(timeout=1)
        assert time.monotonic() - started > 0.9
        threading.Timer(0.5, lambda: server.http.delete(f"/jobs/{job.id}")).start()
        with pytest.raises(JobCanceledError):
            job.wait()
        other = client.quantize(model_file, data=sample_file, seed=1)
        assert other.cancel().state in RUNNING | {"canceled"}
        with pytest.raises(JobCanceledError):
            other.wait()


def test_the_bar_shows_stage_and_message(
    server: Any, model_file: Path, sample_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(server.url) as client:
        client.quantize(model_file, data=sample_file).wait(progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "succeeded" in shown.err
    assert "100%" in shown.err


def test_waiting_outlives_a_restart_of_the_service(
    own_server: Any, model_file: Path, sample_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PATIENCE_SECONDS", 900.0)
    with Client(own_server.url) as client:
        job = client.quantize(model_file, data=sample_file, seed=1)
        attempts: list[int] = []
        waiting = threading.Thread(target=lambda: _until_second_attempt(job, attempts))
        waiting.start()
        own_server.until(lambda: own_server.job(job.id)["attempt"] and attempts, "the first attempt")
        own_server.stop()
        own_server.start()
        waiting.join()
        assert attempts[-1] >= 2


def _until_second_attempt(job: Any, attempts: list[int]) -> None:
    class Enough(Exception):  # noqa: N818
        pass

    def look(info: JobInfo) -> None:
        attempts.append(info.attempt)
        if info.attempt >= 2:
            raise Enough

    with pytest.raises(Enough):
        job.wait(on_progress=look)


def test_no_service_is_said_plainly() -> None:
    with (
        Client("http://127.0.0.1:9", retries=0) as client,
        pytest.raises(ServiceUnreachableError, match="bitwright serve"),
    ):
        client.jobs.list()
