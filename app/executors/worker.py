"""What runs inside a worker process: the engine on one task, and the checks of one upload."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from app.executors.failures import fault, told
from app.executors.messages import say
from app.executors.protocol import Outcome, Task
from quant_core.errors import CancelledError, UserError
from quant_core.spec import JobFailure, JobSpec, JobSummary, Preflight, Progress
from quant_core.spec.limits import Limits, limited_to
from quant_core.spec.memory_share import with_less_memory

_log = logging.getLogger("bitwright.worker")

_STEP_SECONDS = 0.2
"""Steps within a stage that follow faster than this are left out; a stage's first and last never are."""

_FIRST = 800
"""Of 1000: how soon the kernel ends a worker when memory runs out."""


def prepare(parent: int, device: str, preload: str, memory: int = 0) -> None:
    """Make a fresh process a worker: it dies with the service, sees one device, and has the engine loaded.

    Args:
        parent: Process id of the service.
        device: `cpu` or `cuda:N`.
        preload: Module to import ahead of the first task.
        memory: The most bytes of address space on a CPU; 0 for no limit.
    """
    _die_with(parent)
    _die_first()
    os.environ["CUDA_VISIBLE_DEVICES"] = device.removeprefix("cuda:") if device.startswith("cuda:") else ""
    if memory and device == "cpu":
        _limit_memory(memory)
    try:
        import_module(preload)
    except Exception:
        # The first task meets the same error and reports it; failing here would end the worker without a word.
        _log.exception("cannot load %s", preload)


def run(task: Task, engine: str) -> None:
    """Run the engine on a task; everything it has to say goes to the task's message file.

    Args:
        task: What to run.
        engine: Dotted name of the engine's entry.
    """
    # Line by line to a file: it outlives this process, and a kill in mid-write harms no pipe that others share.
    with (
        task.messages.open("x", buffering=1, encoding="utf-8") as messages,
        _temporary_files_in(task.scratch),
    ):
        say(messages, "pid", os.getpid())
        outcome = _outcome(task, engine, _reporter(messages), lambda name: say(messages, "checkpoint", name))
        say(messages, "outcome", outcome.model_dump(mode="json"))


def check(
    model: Path, data: Path, spec: JobSpec, scratch: Path, validator: str, limits: tuple[int, int, int]
) -> JobFailure | None:
    """Run the engine's own checks on an upload.

    Args:
        model: The model's file.
        data: The samples' file.
        spec: What was asked.
        scratch: A folder of this upload alone.
        validator: Dotted name of the engine's checks.
        limits: Most nodes, nesting and bytes of one tensor; 0 bytes for no limit.

    Returns:
        What is wrong with the upload, or None.
    """
    try:
        # Whether there is such a device is for the service to say; the checks see the processor alone.
        with _limited_to(limits), _temporary_files_in(scratch):
            resolve(validator)(model, data, spec.model_copy(update={"device": "cpu"}))
    except UserError as error:
        return told(error, model, data)
    except Exception as error:
        _log.exception("the checks of %s failed", model.name)
        return fault(error, "the check")
    return None


def inspect(
    model: Path, data: Path | None, scratch: Path, inspector: str, limits: tuple[int, int, int]
) -> Preflight | JobFailure:
    """Tell what a model holds.

    Args:
        model: The model's file.
        data: Samples, for models whose inputs have open sizes.
        scratch: A folder of this upload alone.
        inspector: Dotted name of what inspects models.
        limits: As in `check`.

    Returns:
        What it holds, or why that cannot be told.
    """
    files = (model,) if data is None else (model, data)
    try:
        with _limited_to(limits), _temporary_files_in(scratch):
            found: Preflight = resolve(inspector)(model, data)
    except UserError as error:
        return told(error, *files)
    except Exception as error:
        _log.exception("%s could not be inspected", model.name)
        return fault(error, "the inspection")
    return found


def resolve(dotted: str) -> Callable[..., Any]:
    """Import a function by name.

    Args:
        dotted: `module:function`.

    Returns:
        The function.
    """
    module, _, name = dotted.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def _outcome(
    task: Task, engine: str, on_progress: Callable[[Progress], None], on_kept: Callable[[str], None]
) -> Outcome:
    from quant_core.checkpoints import Checkpoints  # brings numpy, which the service does without

    files, options = [task.model, task.data], {}
    if task.earlier is not None:
        files, options = [*files, task.earlier / "sensitivity.json"], {"earlier": task.earlier}
    try:
        with with_less_memory(task.memory_share):
            report = resolve(engine)(
                model=task.model,
                data=task.data,
                spec=_here(task.spec),
                out=task.out,
                on_progress=on_progress,
                checkpoints=Checkpoints(task.checkpoints, on_kept),
                **options,
            )
        return Outcome(state="succeeded", summary=JobSummary.of(report))
    except UserError as error:
        return Outcome(state="failed", error=told(error, *files))
    except CancelledError:
        return Outcome(state="canceled")
    except Exception as error:
        _log.exception("job %s, attempt %d", task.job_id, task.attempt)
        failure = fault(error, f"job {task.job_id}")
        return Outcome(state="failed", error=failure, with_less=failure.code == "out_of_memory")


@contextlib.contextmanager
def _temporary_files_in(scratch: Path) -> Iterator[None]:
    """Have temporary files go with a folder that the service removes, also where this process is killed."""
    before = os.environ.get("TMPDIR")
    folder = scratch / "temporary"
    with contextlib.suppress(FileNotFoundError):  # who sent it went away
        folder.mkdir(exist_ok=True)
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    try:
        yield
    finally:
        tempfile.tempdir = None
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


def _limited_to(limits: tuple[int, int, int]) -> contextlib.AbstractContextManager[None]:
    nodes, nesting, tensor_bytes = limits
    return limited_to(Limits(nodes, nesting, tensor_bytes or None))


def _here(spec: JobSpec) -> JobSpec:
    # The one GPU this process sees is number 0 to it, whatever number it has outside.
    return spec.model_copy(update={"device": "cuda"}) if spec.device.startswith("cuda") else spec


def _reporter(messages: TextIO) -> Callable[[Progress], None]:
    last_stage, last_time = "", 0.0

    def report(progress: Progress) -> None:
        nonlocal last_stage, last_time
        moment = time.monotonic()
        if progress.stage == last_stage and progress.fraction < 1 and moment - last_time < _STEP_SECONDS:
            return
        last_stage, last_time = progress.stage, moment
        say(messages, "progress", progress.model_dump(mode="json"))

    return report


def _limit_memory(size: int) -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _die_first() -> None:
    # When memory runs out the kernel picks a victim; it should be the job, never the service.
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):  # not on this system, or not allowed in this container
        score.write_text(str(max(_FIRST, int(score.read_text()))))


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we could ask
        os.kill(os.getpid(), signal.SIGKILL)
