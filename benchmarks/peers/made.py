"""One file of one tool: made in a process of its own, kept, and found again by the next run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.zoo import zoo_folder

_ERROR_LINES = 1


@dataclass(frozen=True)
class Contestant:
    """A tool with options.

    Attributes:
        name: What the tables call it.
        tool: One of `benchmarks.peers.tools.TOOLS`.
        options: What the tool is told.
        int8: Whether it is one of the int8 files of onnxruntime's own tools, which ours are held against.
    """

    name: str
    tool: str
    options: Mapping[str, object] = field(default_factory=dict)
    int8: bool = False

    @property
    def key(self) -> str:
        """Name of its folder: the same for the same tool and options."""
        text = json.dumps([self.tool, dict(self.options)], sort_keys=True)
        return f"{self.tool}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


@dataclass(frozen=True)
class Made:
    """What came of it.

    Attributes:
        contestant: Who made it.
        path: The file; None where the tool failed.
        cpu_seconds: Processor seconds of the process that made it, start and imports included.
        failure: Why there is no file.
    """

    contestant: Contestant
    path: Path | None
    cpu_seconds: float
    failure: str = ""

    @property
    def bytes(self) -> int:
        """Size of the file with its external data; 0 where there is none."""
        if self.path is None:
            return 0
        return sum(f.stat().st_size for f in self.path.parent.glob(f"{self.path.name}*"))


def results_folder(benchmark: str) -> Path:
    """Give the folder that keeps the files of a benchmark.

    Args:
        benchmark: Its name.

    Returns:
        A folder beside the zoo's.
    """
    return zoo_folder().parent / benchmark


def make(contestant: Contestant, model: Path, samples: Path, kept: Path, *, again: bool = False) -> Made:
    """Make a file, or find the one of an earlier run.

    Args:
        contestant: Who makes it.
        model: The float model.
        samples: The calibration samples.
        kept: Folder that keeps the files of this model.
        again: Whether to make it again although it is kept.

    Returns:
        The file, or why there is none; failures are kept too.
    """
    folder, note = kept / contestant.key, kept / f"{contestant.key}.json"
    if again or not note.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        note.write_text(json.dumps(_run(contestant, model, samples, folder)))
    found = json.loads(note.read_text())
    path = folder / "model.onnx"
    return Made(contestant, path if not found["failure"] else None, found["cpu_seconds"], found["failure"])


def _run(contestant: Contestant, model: Path, samples: Path, folder: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks.peers.tools", contestant.tool]
    command += [str(model), str(samples), str(folder), json.dumps(dict(contestant.options))]
    log = folder.with_suffix(".log")
    with log.open("wb") as written:
        process = subprocess.Popen(command, stdout=written, stderr=written, env=dict(os.environ))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    failure = ""
    if process.returncode:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        failure = " ".join(lines[-_ERROR_LINES:]) or f"ended with {process.returncode}"
    return {"cpu_seconds": usage.ru_utime + usage.ru_stime, "failure": failure}
