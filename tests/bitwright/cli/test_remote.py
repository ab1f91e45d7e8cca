"""Commands that speak to a service: what they print, and what their exit codes say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bitwright import Client, InvalidRequestError, Job
from bitwright.cli import main

Run = Any


@pytest.fixture
def run(server: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("BITWRIGHT_URL", server.url)

    def command(*arguments: object, code: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert ended.value.code == code, said.err
        return said.out if code == 0 else said.err

    return command


def test_a_job_is_sent_followed_and_fetched(
    run: Run, model_file: Path, sample_file: Path, tmp_path: Path
) -> None:
    sent = run(
        "submit", model_file, "--data", sample_file, "--size", "0.3", "--pin", "fc=8", "--tag", "by-hand", "--json"
    )  # fmt: skip
    info = json.loads(sent)
    assert info["spec"]["budget"]["size"] == 0.3
    assert info["spec"]["rules"][0]["pin"] == 8
    waited = run("wait", info["id"])
    assert f"{info['id']}  succeeded" in waited
    assert "0.500 of the size, top1 0.89" in waited
    listed = json.loads(run("jobs", "--tag", "by-hand", "--state", "succeeded", "--json"))
    assert [job["id"] for job in listed] == [info["id"]]
    assert info["id"] in run("jobs")
    names = run("download", info["id"], "--out", tmp_path / "out").split()
    assert str(tmp_path / "out" / "model.onnx") in names
    assert (tmp_path / "out" / "model.onnx").read_bytes() == model_file.read_bytes()[::-1]
    assert (
        json.loads(run("plan", info["id"], "--size", "0.25", "--pin", "fc=4", "--json"))["layers"][0]["bits"]
        == 4
    )


def test_options_are_named_where_the_service_refuses_them(
    run: Run, model_file: Path, sample_file: Path
) -> None:
    job = json.loads(run("submit", model_file, "--data", sample_file, "--wait", "--json"))["id"]
    told = run("plan", job, "--effective-bits", "1.2", code=2)
    assert told.startswith("Error: --effective-bits: the budget is 1.2"), told
    assert run("plan", job, "--pin", "nix=8", code=2).startswith("Error: --pin: rule 'nix' matches no layer")
    assert "Error: --device: " in run(
        "submit", model_file, "--data", sample_file, "--device", "cuda:7", code=2
    )
    with Client(os.environ["BITWRIGHT_URL"]) as client:
        for asked, place in (({"pin": {"nix": 8}}, "pin.nix"), ({"effective_bits": 1.2}, "effective_bits")):
            with pytest.raises(InvalidRequestError) as refused:
                client.jobs.get(job).plan(**asked)
            assert refused.value.where == place


def test_a_list_tells_analyses_from_quantizations(run: Run, model_file: Path, sample_file: Path) -> None:
    with Client(os.environ["BITWRIGHT_URL"]) as client:
        job = client.analyze(model_file, data=sample_file, tags=["analysis"]).wait()
    assert f"{job.id}  succeeded  100%  {model_file.name} (analyze)\n" == run("jobs", "--tag", "analysis")


def test_a_band_that_was_not_kept_is_said_of_a_job_that_succeeded(
    run: Run, model_file: Path, sample_file: Path
) -> None:
    def send(*options: str) -> str:
        said: str = run("submit", model_file, "--data", sample_file, "--wait", *options)
        return said

    assert "not shown to keep its accuracy band\n" in send("--max-drop", "1%")
    assert json.loads(send("--max-drop", "1%", "--json"))["summary"]["band_met"] is False
    assert "band" not in send("--max-drop", "20%")
    assert json.loads(send("--json"))["summary"]["band_met"] is None


def test_a_job_that_is_waited_for_is_named_before_the_wait(
    run: Run, model_file: Path, sample_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(job: Job, *_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Job, "wait", stop)
    told = run("submit", model_file, "--data", sample_file, "--wait", code=130).splitlines()
    job_id = told[0].removeprefix("Sent as job ").removesuffix(".")
    assert len(job_id) == 32
    assert told[1] == f"The job goes on; bitwright cancel {job_id} ends it."


def test_what_is_too_long_to_look_for_is_named_by_its_option(run: Run) -> None:
    told = run("jobs", "--text", "a" * 300, code=2)
    assert told.startswith("Error: --text: the text is longer than 256 characters")


def test_who_stops_waiting_is_told_that_the_job_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(os.environ["BITWRIGHT_URL"]) as client:
        (job,) = client.jobs.list(limit=1)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Job, "wait", interrupted)
    assert f"bitwright cancel {job.id}" in run("wait", job.id, code=130)


def test_an_empty_list_says_so_beside_its_output(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["jobs", "--text", "no such words"])
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "No job matches.\n")


def test_what_is_small_is_sent_without_a_bar(
    server: Any, model_file: Path, sample_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(server.url) as client:
        client.quantize(model_file, data=sample_file, progress=True)
    assert capsys.readouterr().err == ""


def test_exit_codes_tell_what_happened(run: Run, model_file: Path, sample_file: Path, tmp_path: Path) -> None:
    assert "no job of this id" in run("wait", "0" * 32, code=3)
    assert "bitwright serve" in run("jobs", "--url", "http://127.0.0.1:9", code=7)
    for url in ("nonsense", "ftp://127.0.0.1/", "http://127.0.0.1:99999", "http://"):
        assert f"{url}: this is not the address of a service" in run("jobs", "--url", url, code=2)
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"text")
    assert "Export one" in run("submit", bad, "--data", sample_file, code=2)
    assert "--size" in run("submit", model_file, "--data", sample_file, "--size", "huge", code=2)
    assert "at least 1234 bytes" in run(
        "submit", model_file, "--data", sample_file, "--seed", "5", "--wait", code=10
    )
    slow = json.loads(run("submit", model_file, "--data", sample_file, "--seed", "1", "--json"))["id"]
    assert "still" in run("wait", slow, "--timeout", "0", code=12)
    assert f"bitwright cancel {slow}" in run("delete", slow, code=4)
    assert slow in run("cancel", slow)
    assert "canceled" in run("wait", slow, code=11)
    assert "already canceled" in run("cancel", slow, code=4)
    assert run("delete", slow) == ""
    assert "no job of this id" in run("delete", slow, code=3)


@pytest.mark.parametrize("name", ["", "..", "../uploads/mine", "a b", "a/b", "%2e%2e", "x?y", "ключ"])
def test_what_is_no_id_of_a_job_asks_for_nothing_else(
    run: Run, server: Any, tmp_path: Path, name: str
) -> None:
    assert server.http.put("/uploads/mine", content=b"x").is_success
    for command in (("wait", name), ("cancel", name), ("download", name, "--out", tmp_path / "out")):
        assert f"{name!r}: this is not the id of a job" in run(*command, code=2)
    with Client(server.url) as client:
        job = client.jobs.list(limit=1)[0] if client.jobs.list(limit=1) else None
        if job is not None:
            job.info = job.info.model_copy(update={"id": name})
            with pytest.raises(InvalidRequestError, match="not the id"):
                job.delete()
    assert server.http.get("/uploads/mine").is_success


def test_a_key_that_can_be_none_is_said_to_be_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_API_KEY", "ключ")
    assert "characters that no key has" in run("jobs", code=5)
    monkeypatch.setenv("BITWRIGHT_API_KEY", "bw_0123456789ab_x\n")  # as a file has it
    run("jobs")


def test_a_place_that_cannot_be_written_to_is_no_fault_of_ours(
    run: Run, server: Any, model_file: Path, tmp_path: Path
) -> None:
    job = server.submit()
    server.wait_for(job, "succeeded")
    assert "no folder can be made there" in run("download", job, "--out", model_file, code=2)
    assert "no folder can be made there" in run("download", job, "--out", "/proc/none/x", code=2)


def test_every_shell_gets_its_completion() -> None:
    for shell, sign in (
        ("bash", "complete -o"),
        ("zsh", "#compdef bitwright"),
        ("fish", "complete --command"),
    ):
        told = subprocess.run(
            [sys.executable, "-m", "bitwright"],
            env=os.environ | {"_BITWRIGHT_COMPLETE": f"source_{shell}"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert sign in told.stdout
        assert "bitwright" in told.stdout
