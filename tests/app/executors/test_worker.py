"""What a worker does with its task and what it leaves behind, in this very process."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from app.executors import Task, worker
from quant_core.errors import CancelledError, SpecError
from quant_core.spec import AnalyzeSpec, JobFailure, Progress, QuantizeSpec, SensitivityTable
from quant_core.spec.limits import Limits, limits
from quant_core.spec.memory_share import memory_share

ENGINE = "engine_of_a_test:act"
TABLE = SensitivityTable(
    method="output", trace_method=None, loss="kl", samples=1, probes=0, seed=0, layers=()
)
Install = Callable[[Any], None]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a function in the engine's place."""

    def install(function: Any) -> None:
        module = ModuleType(ENGINE.partition(":")[0])
        module.__dict__["act"] = function
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return install


@pytest.fixture
def task(tmp_path: Path) -> Task:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Task("job", 2, tmp_path / "m.onnx", tmp_path / "d.npz", QuantizeSpec(), scratch, memory_share=0.25)


def told(task: Task) -> list[dict[str, Any]]:
    return [json.loads(line) for line in task.messages.read_text(encoding="utf-8").splitlines()]


def test_the_engine_gets_the_task_and_all_it_says_is_written_down(task: Task, engine: Install) -> None:
    seen: dict[str, Any] = {}

    def act(**given: Any) -> SensitivityTable:
        seen.update(given, share=memory_share(), folder=Path(tempfile.gettempdir()))
        given["on_progress"](Progress(stage="ingest", fraction=0.5, message="half"))
        with given["checkpoints"].keep("one"):
            pass
        return TABLE

    engine(act)
    worker.run(task, ENGINE)
    assert (seen["model"], seen["data"], seen["out"]) == (task.model, task.data, task.out)
    assert (seen["spec"], seen["share"]) == (task.spec, 0.25)
    assert seen["folder"] == task.scratch / "temporary"
    assert "earlier" not in seen
    first, step, kept, last = told(task)
    assert first == {"pid": os.getpid()}
    assert step["progress"]["message"] == "half"
    assert kept == {"checkpoint": "one"}
    assert (task.checkpoints / "one").is_dir()
    assert last["outcome"]["state"] == "succeeded"
    assert memory_share() == 1
    with pytest.raises(FileExistsError):  # two that run one attempt would write into each other's lines
        worker.run(task, ENGINE)


def test_an_earlier_job_is_handed_on_and_its_place_is_nobodys_business(task: Task, engine: Install) -> None:
    task = Task(task.job_id, 2, task.model, task.data, task.spec, task.scratch, Path("/kept/tables"))

    def act(earlier: Path, **_: Any) -> None:
        raise SpecError(f"{earlier}/sensitivity.json and {task.model} differ", remedy="ask anew")

    engine(act)
    worker.run(task, ENGINE)
    outcome = told(task)[-1]["outcome"]
    assert outcome["error"]["message"] == "sensitivity.json and m.onnx differ"
    assert (outcome["state"], outcome["with_less"]) == ("failed", False)


@pytest.mark.parametrize(
    ("error", "state", "code", "with_less"),
    [
        (CancelledError("enough"), "canceled", None, False),
        (MemoryError(), "failed", "out_of_memory", True),
        (ZeroDivisionError("no"), "failed", "internal", False),
    ],
)
def test_how_an_engine_ends_is_how_the_attempt_ended(
    error: Exception, state: str, code: str | None, with_less: bool, task: Task, engine: Install
) -> None:
    def act(**_: Any) -> None:
        raise error

    engine(act)
    worker.run(task, ENGINE)
    outcome = told(task)[-1]["outcome"]
    assert (outcome["state"], outcome["with_less"]) == (state, with_less)
    assert (outcome["error"] and outcome["error"]["code"]) == code


@pytest.mark.parametrize(
    ("asked", "used"), [("cpu", "cpu"), ("cuda:3", "cuda"), ("cuda", "cuda"), ("auto", "auto")]
)
def test_the_one_gpu_that_a_worker_sees_is_its_first(
    asked: str, used: str, task: Task, engine: Install
) -> None:
    seen = []

    def act(spec: AnalyzeSpec, **_: Any) -> SensitivityTable:
        seen.append(spec.device)
        return TABLE

    engine(act)
    spec = AnalyzeSpec.model_validate({"device": asked})
    worker.run(Task("job", 1, task.model, task.data, spec, task.scratch), ENGINE)
    assert seen == [used]


def test_steps_that_follow_fast_are_left_out_but_for_the_first_and_last_of_a_stage(
    task: Task, engine: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: clock.now))
    steps = [
        ("ingest", 0.0, 0.0), ("ingest", 0.1, 0.1), ("ingest", 0.2, 0.25), ("ingest", 0.3, 0.4), ("ingest", 1.0, 0.41),
        ("export", 0.0, 0.42), ("export", 0.5, 0.5), ("export", 0.6, 0.62),
    ]  # fmt: skip

    def act(on_progress: Callable[[Progress], None], **_: Any) -> SensitivityTable:
        for stage, fraction, moment in steps:
            clock.now = 100 + moment
            on_progress(Progress.model_validate({"stage": stage, "fraction": fraction, "message": ""}))
        return TABLE

    engine(act)
    worker.run(task, ENGINE)
    kept = [(line["progress"]["stage"], line["progress"]["fraction"]) for line in told(task)[1:-1]]
    assert kept == [("ingest", 0.0), ("ingest", 0.2), ("ingest", 1.0), ("export", 0.0), ("export", 0.6)]


@pytest.mark.parametrize("before", [None, "/somewhere"])
def test_temporary_files_lie_with_the_upload_while_it_is_checked_and_no_longer(
    before: str | None, tmp_path: Path, engine: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before is None:
        monkeypatch.delenv("TMPDIR", raising=False)
    else:
        monkeypatch.setenv("TMPDIR", before)
    seen = []
    engine(lambda *_: seen.append((tempfile.gettempdir(), limits())))
    files = tmp_path / "m.onnx", tmp_path / "d.npz"
    spec = QuantizeSpec.model_validate({"device": "cuda:1"})
    assert worker.check(*files, spec, tmp_path, ENGINE, (7, 3, 0)) is None
    worker.inspect(files[0], None, tmp_path, ENGINE, (7, 3, 90))
    folder = str(tmp_path / "temporary")
    assert seen == [(folder, Limits(7, 3, None)), (folder, Limits(7, 3, 90))]
    assert os.environ.get("TMPDIR") == before
    assert tempfile.tempdir is None


def test_checks_see_the_processor_and_tell_what_is_wrong(tmp_path: Path, engine: Install) -> None:
    model, data = tmp_path / "m.onnx", Path("/kept/d.npz")

    def act(_model: Path, _data: Path, spec: QuantizeSpec) -> None:
        assert spec.device == "cpu"
        raise SpecError(f"{data} does not fit", remedy=f"look at {model}")

    engine(act)
    found = worker.check(
        model, data, QuantizeSpec.model_validate({"device": "cuda"}), tmp_path, ENGINE, (1, 1, 0)
    )
    assert found is not None
    assert (found.message, found.remedy) == ("d.npz does not fit", "look at m.onnx")


@pytest.mark.parametrize("data", [None, Path("/kept/samples.npz")])
def test_what_cannot_be_inspected_is_told_by_its_name(
    data: Path | None, tmp_path: Path, engine: Install
) -> None:
    model = tmp_path / "m.onnx"

    def refuse(*files: Path | None) -> None:
        raise SpecError(f"{[str(file) for file in files if file]} is no model", remedy="send one")

    engine(refuse)
    found = worker.inspect(model, data, tmp_path, ENGINE, (1, 1, 0))
    assert isinstance(found, JobFailure)
    assert found.message == f"{['m.onnx'] if data is None else ['m.onnx', 'samples.npz']} is no model"

    def fail(*_: Path | None) -> None:
        raise MemoryError

    engine(fail)
    found = worker.inspect(model, data, tmp_path, ENGINE, (1, 1, 0))
    assert isinstance(found, JobFailure)
    assert found.code == "out_of_memory"


def test_an_upload_whose_folder_is_gone_is_still_checked(tmp_path: Path, engine: Install) -> None:
    engine(lambda *_: None)
    model = tmp_path / "m.onnx"
    assert worker.check(model, model, QuantizeSpec(), tmp_path / "gone", ENGINE, (1, 1, 0)) is None
