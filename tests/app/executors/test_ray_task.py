"""What goes to the process that speaks to Ray, and what stays out of the service."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.executors import Cluster, RayExecutor, Task
from app.executors.devices import served_by
from app.executors.ray_task import decode, encode
from quant_core.spec import AnalyzeSpec, JobSpec, QuantizeSpec


@pytest.mark.parametrize("spec", [QuantizeSpec(seed=7, size=0.25), AnalyzeSpec(seed=3)])
@pytest.mark.parametrize("earlier", [None, Path("/scratch/in/earlier/job")])
def test_a_task_is_the_same_on_the_other_side(spec: JobSpec, earlier: Path | None) -> None:
    task = Task(
        "job", 2, Path("/scratch/in/m.onnx"), Path("/scratch/in/d.npz"), spec, Path("/scratch"), earlier, 0.25
    )
    assert decode(json.loads(json.dumps(encode(task)))) == task


def test_the_service_itself_never_loads_ray() -> None:
    code = "import sys, app.service; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_places_on_a_cluster_are_alike() -> None:
    assert served_by("cuda/3") == ("auto", "cuda")
    assert served_by("cpu/0") == ("auto", "cpu")
    assert served_by("cuda:3") == ("auto", "cuda:3", "cuda")


def test_no_job_is_taken_before_the_cluster_was_reached() -> None:
    executor = RayExecutor(Cluster("127.0.0.1:1", "0123456789abcdef"), ("cpu",), {"quantize": "a:b"})
    assert executor.fault == "The Ray cluster cannot be reached; jobs are taken and wait for it."
    executor.close()
    assert executor.devices == ("cpu",)
    assert executor.capacity(0) == 0


def test_a_cluster_without_room_for_any_job_is_told_from_a_full_one() -> None:
    executor = RayExecutor(Cluster("127.0.0.1:1", "0123456789abcdef"), ("auto",), {"quantize": "a:b"})
    full, none = SimpleNamespace(gpus=0, cpus=2), SimpleNamespace(gpus=0, cpus=0)
    for total, fault in ((none, "No machine of the Ray cluster has room for jobs"), (full, "")):
        executor._bridge = SimpleNamespace(heard=time.monotonic(), total=total, free=none)  # type: ignore[assignment]
        assert (executor.fault or "").startswith(fault)
        assert bool(executor.fault) == bool(fault)
