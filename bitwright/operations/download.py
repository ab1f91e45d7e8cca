"""Fetching what a job made."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from bitwright.errors import InvalidRequestError
from bitwright.operations.answers import save
from bitwright.operations.jobs import JSON
from bitwright.results import JobInfo
from bitwright.steps import Operation, Send

_TABLE, _COSTS = "sensitivity.json", "costs.json"
_SILENCE = 120.0
_FILES: dict[str, tuple[str, dict[str, str]]] = {
    "report.json": ("report", JSON),
    "model.onnx": ("model", {}),
    "report.html": ("report", {"Accept": "text/html"}),
    _TABLE: (f"files/{_TABLE}", JSON),
    "pareto.json": ("files/pareto.json", JSON),
    _COSTS: (f"files/{_COSTS}", JSON),
}


def download(info: JobInfo, target: Path, retries: int) -> Operation[Path]:
    """Fetch all files of a job.

    Args:
        info: The job.
        target: Folder to put them in; it is made.
        retries: How often to start again with a file whose connection broke.

    Returns:
        The folder.

    Raises:
        InvalidRequestError: If the folder holds a model that no job wrote, or cannot be made.
    """
    if info.kind == "quantize" and (target / "model.onnx").exists() and not (target / "report.json").exists():
        raise InvalidRequestError(
            "the result would replace a model that lies there without a report, so it is none of ours.",
            remedy="Name another folder, such as `result`.",
            where=str(target / "model.onnx"),
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequestError(
            f"no folder can be made there ({error.strerror}).",
            remedy="Name another one.",
            where=str(target),
            code="folder",
        ) from error
    files = dict(_FILES) if info.kind == "quantize" else {name: _FILES[name] for name in (_TABLE, _COSTS)}
    if info.spec.spectrum:
        files |= {name: (f"files/{name}", {}) for name in ("spectrum.json", "spectrum.html")}
    for name, (address, headers) in files.items():
        yield from _fetch(f"/jobs/{info.id}/{address}", headers, target / name, retries)
    if info.kind == "quantize":
        data = json.loads((target / "report.json").read_text())["model"].get("data_file")
        if data:
            yield from _fetch(f"/jobs/{info.id}/files/model.onnx.data", {}, target / Path(data).name, retries)
    if json.loads((target / _TABLE).read_text()).get("interactions"):
        address = f"/jobs/{info.id}/files/interactions.npz"
        yield from _fetch(address, {}, target / "interactions.npz", retries)
    return target


def _fetch(address: str, headers: dict[str, str], target: Path, retries: int) -> Operation[None]:
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield from save(Send("GET", address, headers=headers, timeout=(30.0, _SILENCE)), part, retries)
        part.replace(target)
    except OSError as error:
        if error.filename is None:  # what is written to an open file fails without its name
            error.filename = str(target)
        raise
    finally:
        part.unlink(missing_ok=True)
