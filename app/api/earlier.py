"""`from_job`: a new job on the model, samples and sensitivities of one that has ended."""

from __future__ import annotations

import shutil
from pathlib import Path

from app.api.artifacts import find_artifact, find_output
from app.api.deps import find_job
from app.api.problems import ProblemError
from app.service import Service
from quant_core.errors import SpecError
from quant_core.spec import JobSpec, QuantizeSpec, SensitivityTable
from quant_core.spec.taking_over import taking_over

TABLE, PAIRS = "sensitivity.json", "interactions.npz"


def take_over(
    service: Service, owner: str, job_id: str, folder: Path, spec: JobSpec
) -> tuple[Path, Path, JobSpec]:
    """Copy what an ended job was given and found, so that it may be deleted before the new one starts.

    Args:
        service: The service.
        owner: Who asks.
        job_id: The earlier job.
        folder: Where to copy to: `model`, `data`, and the tables in `earlier/<job_id>`.
        spec: What is asked now.

    Returns:
        The model's and the samples' file, and what is asked, with the method and the seed of that job.

    Raises:
        ProblemError: If there is no such job, it has no sensitivities, its files are gone, or they were estimated
            otherwise than is asked.
    """
    job = find_job(service, owner, job_id)
    table = find_artifact(service, job, TABLE)
    scores = SensitivityTable.model_validate_json(table.read_bytes())
    rounding = scores.rounding
    if rounding not in {None, spec.scored_as}:
        raise ProblemError(
            422,
            "spec",
            f"The job's sensitivities are those of {rounding} rounding, and {spec.scored_as} is asked.",
            remedy=f"Ask for {rounding}, or send model and samples to estimate them again.",
            where="spec.rounding",
        )
    if isinstance(spec, QuantizeSpec):
        try:
            spec = taking_over(spec, scores)
        except SpecError as error:
            raise ProblemError(
                422, "spec", error.message, remedy=error.remedy, where=f"spec.{error.where}"
            ) from error
    pairs = find_output(service, job, PAIRS)
    target = folder / "earlier" / job_id
    target.mkdir(parents=True)
    try:
        for name, found in ((TABLE, table), (PAIRS, pairs)):
            if found is not None:
                shutil.copyfile(found, target / name)
        for part in ("model", "data"):
            service.storage.fetch(f"{job_id}/input/{part}", folder / part)
        complete = True
    except FileNotFoundError:
        complete = False
    model, data = folder / "model" / job.model, folder / "data" / job.data
    if not (complete and model.is_file() and data.is_file()):
        raise ProblemError(
            404,
            "no_such_file",
            "The job's model or samples are gone from the data folder.",
            remedy="Send model and samples again.",
            where=job_id,
        )
    return model, data, spec
