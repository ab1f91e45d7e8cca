"""A job at the service: look at it, wait for it, cancel it, fetch what it made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import httpx

from bitwright.errors import JobCanceledError, JobFailedError
from bitwright.follow import follow
from bitwright.requests import read_request
from bitwright.results import JobInfo, JobState
from bitwright.transport import Transport
from quant_core.spec import AnalyzeSpec, BitPlan, PlanSpec, QuantizeSpec, Report, SensitivityTable

CHECK_SECONDS = 600.0
"""A job is accepted after the files were checked, which takes the longer the larger they are."""

_JSON = {"Accept": "application/json"}
_TABLE = "sensitivity.json"
_ANALYSIS = (_TABLE, "costs.json")
_FILES: dict[str, tuple[str, dict[str, str]]] = {
    "model.onnx": ("model", {}),
    "report.json": ("report", _JSON),
    "report.html": ("report", {"Accept": "text/html"}),
    "sensitivity.json": ("files/sensitivity.json", _JSON),
    "pareto.json": ("files/pareto.json", _JSON),
    "costs.json": ("files/costs.json", _JSON),
}


class Job:
    """A handle on one job; `info` is how it stood when it was last looked at.

    Attributes:
        info: The job as it was last seen.
    """

    def __init__(self, transport: Transport, info: JobInfo) -> None:
        self._transport = transport
        self._report: Report | None = None
        self.info = info

    def __repr__(self) -> str:
        return f"Job(id={self.id!r}, state={self.state!r}, progress={self.info.progress:.2f})"

    @property
    def id(self) -> str:
        """Its name; `Client.job` finds it again."""
        return self.info.id

    @property
    def state(self) -> JobState:
        """Where it stood when it was last looked at."""
        return self.info.state

    def refresh(self) -> Job:
        """Look at it again.

        Returns:
            This job.
        """
        answer = self._transport.get(f"/jobs/{self.id}")
        self.info = JobInfo.model_validate_json(answer.content)
        return self

    def wait(
        self,
        *,
        progress: bool = False,
        timeout: float | None = None,
        on_progress: Callable[[JobInfo], None] | None = None,
    ) -> Job:
        """Wait until it has succeeded.

        Args:
            progress: Whether to draw a progress bar.
            timeout: Seconds after which to give up; the job goes on.
            on_progress: Called with the job whenever something is new.

        Returns:
            This job.

        Raises:
            JobFailedError: If it failed.
            JobCanceledError: If it was canceled.
        """
        for info in self._watched(timeout, progress):
            self.info = info
            if on_progress is not None:
                on_progress(info)
        error = self.info.error
        if error is not None:
            raise JobFailedError(
                error.message, remedy=error.remedy, where=error.where, code=error.code, job_id=self.id
            )
        if self.state == "canceled":
            raise JobCanceledError(
                "The job was canceled.", remedy="Send it again.", code="canceled", job_id=self.id
            )
        return self

    def cancel(self) -> Job:
        """Cancel it while it waits or runs; `ConflictError` tells that it has already ended.

        Returns:
            This job.
        """
        answer = self._transport.send("DELETE", f"/jobs/{self.id}", params={"cancel_only": "true"})
        self.info = JobInfo.model_validate_json(answer.content)
        return self

    def delete(self) -> None:
        """Delete it and its files at the service; a job that waits or runs is canceled instead."""
        self._transport.send("DELETE", f"/jobs/{self.id}")

    @property
    def report(self) -> Report:
        """What was asked, found, chosen and measured; `ConflictError` while there is no result."""
        if self._report is None:
            answer = self._transport.get(f"/jobs/{self.id}/report", headers=_JSON)
            self._report = Report.model_validate_json(answer.content)
        return self._report

    @property
    def sensitivities(self) -> SensitivityTable:
        """What each layer loses at each bit-width; `ConflictError` while there is no result."""
        answer = self._transport.get(f"/jobs/{self.id}/files/sensitivity.json", headers=_JSON)
        return SensitivityTable.model_validate_json(answer.content)

    def plan(self, **spec: Any) -> BitPlan:
        """Ask for another plan from what the job measured; it comes at once, and no new file is made.

        Args:
            spec: Fields of `PlanSpec`, such as `size=0.2`, `bops="3G"` or `pin={"fc": 8}`.

        Returns:
            The plan; `ConflictError` while the job has no result.
        """
        body = PlanSpec.model_validate(spec).model_dump_json()
        headers = {"Content-Type": "application/json"}
        answer = self._transport.send("POST", f"/jobs/{self.id}/plans", content=body, headers=headers)
        return BitPlan.model_validate_json(answer.content)

    def quantize(self, **options: Any) -> Job:
        """Ask for another file from what the job measured: nothing is sent again, and no probe is run.

        Args:
            options: Fields of `QuantizeSpec`, such as `size=0.2` or `pin={"fc": 8}`. What is not given is as this
                job was asked, but for its budget; pins and exclusions join the rules it had.

        Returns:
            The new job, queued; `ConflictError` while this one has no result.

        Raises:
            InvalidRequestError: If this client or the service refuses an option; it says why and what to do.
        """
        asked = self.info.spec.model_dump(include=set(QuantizeSpec.model_fields) - {"budget"})
        if "bits" in options:
            asked.pop("weight_bits")
        spec = read_request(QuantizeSpec, asked | options)
        parts: list[tuple[str, Any]] = [
            ("spec", (None, spec.model_dump_json(), "application/json")),
            ("from_job", (None, self.id)),
        ]
        answer = self._transport.send(
            "POST", "/quantize", files=parts, timeout=httpx.Timeout(30.0, read=CHECK_SECONDS)
        )
        return Job(self._transport, JobInfo.model_validate_json(answer.content))

    def download(self, folder: str | PathLike[str]) -> Path:
        """Fetch `model.onnx`, `report.json`, `report.html`, `sensitivity.json`, `pareto.json` and `costs.json`.

        An analysis has `sensitivity.json` and `costs.json`, and the spectrum where it was asked for. What belongs to
        pairs of layers, `interactions.npz`, comes with any table that names it.

        Args:
            folder: Where to; it is made. A file appears under its name only when it is complete.

        Returns:
            The folder.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        files = dict(_FILES) if self.info.kind == "quantize" else {name: _FILES[name] for name in _ANALYSIS}
        if isinstance(self.info.spec, AnalyzeSpec) and self.info.spec.spectrum:
            files |= {name: (f"files/{name}", {}) for name in ("spectrum.json", "spectrum.html")}
        for name, (address, headers) in files.items():
            self._fetch(f"/jobs/{self.id}/{address}", headers, target / name)
        if json.loads((target / _TABLE).read_text()).get("interactions"):
            self._fetch(f"/jobs/{self.id}/files/interactions.npz", {}, target / "interactions.npz")
        return target

    def _fetch(self, address: str, headers: dict[str, str], target: Path) -> None:
        part = target.with_name(f".{target.name}.part")

        def write(pieces: Iterator[bytes]) -> None:
            with part.open("wb") as file:
                for piece in pieces:
                    file.write(piece)

        try:
            self._transport.fetch(address, write, headers=headers)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def _watched(self, timeout: float | None, progress: bool) -> Iterator[JobInfo]:
        updates = follow(self._transport, self.id, timeout)
        if not progress:
            return updates
        from bitwright.progress import draw  # only those who look at it load rich

        return draw(updates)
