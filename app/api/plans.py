"""`POST /jobs/{id}/plans`: another plan from the tables of an ended job, at once."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fastapi import APIRouter

from app.api.artifacts import find_artifact, find_output
from app.api.deps import JobDep, ServiceDep
from app.api.earlier import PAIRS, TABLE
from app.api.problems import ProblemError, responses
from app.api.said_once import JsonRoute, SaidOnce
from quant_core.errors import UserError
from quant_core.spec import BitPlan, PlanSpec

router = APIRouter(prefix="/jobs/{job_id}", tags=["results"], route_class=JsonRoute)


@router.post(
    "/plans",
    summary="Make another plan",
    dependencies=[SaidOnce],
    responses=responses(404, 409, 413, 422),
)
def make_plan(job: JobDep, service: ServiceDep, spec: PlanSpec) -> BitPlan:
    """Choose bits under other budgets and rules from what the job measured; no new file is made."""
    from quant_core.allocation.replan import replan  # the solvers weigh as much as a quarter of the service

    found = {name: find_artifact(service, job, name) for name in (TABLE, "costs.json")}
    pairs = find_output(service, job, PAIRS)
    with tempfile.TemporaryDirectory(dir=service.staging) as name:
        folder = Path(name)
        for table, path in (found | ({PAIRS: pairs} if pairs is not None else {})).items():
            (folder / table).symlink_to(path.absolute())
        try:
            return replan(folder, spec)
        except UserError as error:
            field = spec.place_of(error.where)
            where = None if (error.where or "").startswith(name) else error.where
            raise ProblemError(
                422,
                error.code,
                error.message,
                remedy=error.remedy,
                where=where if field is None else f"body.{field}",
            ) from error
