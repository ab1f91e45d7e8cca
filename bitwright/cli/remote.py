"""`bitwright submit`, `jobs`, `wait`, `cancel`, `delete`, `download`: what the client does, by command."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from bitwright.cli.quantize import quantize, read_spec
from bitwright.cli.service_options import AsJson, JobId, Tags, Url, Webhook
from bitwright.harmless import harmless

if TYPE_CHECKING:
    from bitwright import Client, Job
    from quant_core.spec import BitPlan, PlanSpec

_JOB_ID = re.compile(r"[0-9a-f]{32}")
_LOCAL = {"out", "earlier"}
"""Options of `quantize` that only make sense where the engine is."""


def submit(**given: Any) -> None:
    """Send MODEL.onnx to a service to be quantized, with the options of `quantize`, and print the job's id."""
    from bitwright.cli import failures

    spec = read_spec(given)
    with _client(given["url"]) as client:
        with failures.options_of(spec):
            job = client.quantize(
                given["model"],
                data=given["data"],
                spec=spec,
                tags=given["tags"] or (),
                webhook=given["webhook"],
                progress=True,
            )
        if given["wait"]:
            typer.echo(f"Sent as job {job.id}.", err=True)
            _follow(job)
        _print(job, as_json=given["as_json"])


def _signature_of_submit() -> inspect.Signature:
    """Every option of `quantize` that a service can be asked for, and those of the service."""
    hints = get_type_hints(quantize, include_extras=True)
    taken = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(quantize).parameters.items()
        if name not in _LOCAL
    ]
    wait_for_it = Annotated[bool, typer.Option("--wait", help="Wait until it has succeeded.")]
    added = (
        ("tags", Tags, None),
        ("webhook", Webhook, None),
        ("wait", wait_for_it, False),
        ("as_json", AsJson, False),
        ("url", Url, None),
    )
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for name, kind, default in added
    ]
    return inspect.Signature([*taken, *more])


submit.__signature__ = _signature_of_submit()  # type: ignore[attr-defined]
submit.__annotations__ = {name: p.annotation for name, p in _signature_of_submit().parameters.items()}


def jobs(
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help="Only jobs in this state, such as queued, succeeded or failed; may be repeated.",
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="WORD", help="Only jobs with this tag; may be repeated."),
    ] = None,
    text: Annotated[
        str,
        typer.Option(
            "--text", metavar="WORDS", help="Only jobs with these words in their file names, tags or id."
        ),
    ] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="How many at most.")] = 20,
    offset: Annotated[
        int, typer.Option("--offset", metavar="N", min=0, max=2**31, help="How many newer ones to pass over.")
    ] = 0,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List the jobs of a service, newest first."""
    import json

    from quant_core.spec import JobState

    states = get_args(JobState)
    if unknown := [one for one in state or () if one not in states]:
        raise typer.BadParameter(
            f"{unknown[0]!r} is no state of a job; choose from {', '.join(states)}", param_hint="--state"
        )
    with _client(url) as client:
        wanted: Any = state or ()
        found = client.jobs.list(state=wanted, tag=tag or (), text=text, limit=limit, offset=offset)
    if as_json:
        typer.echo(json.dumps([job.info.model_dump(mode="json") for job in found], indent=2))
        return
    if not found:
        typer.echo("No job matches.", err=True)
    for job in found:
        _print(job, as_json=False)


def wait(
    job_id: JobId,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0, help="Seconds after which to give up; the job goes on."
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Wait until a job has ended; the exit code says how."""
    with _client(url) as client:
        job = client.jobs.get(job_id)
        _follow(job, timeout)
        _print(job, as_json=as_json)


def cancel(job_id: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """Cancel a job that waits or runs."""
    with _client(url) as client:
        _print(client.jobs.get(job_id).cancel(), as_json=as_json)


def delete(job_id: JobId, url: Url = None) -> None:
    """Delete a job that has ended, with its files."""
    from bitwright import ConflictError

    with _client(url) as client:
        job = client.jobs.get(job_id)
        if not job.info.ended:
            raise ConflictError(
                f"the job is {job.state}.",
                remedy=f"Wait until it has ended, or end it: bitwright cancel {job_id}",
                where=job_id,
                code="not_finished",
            )
        job.delete()


def download(
    job_id: JobId,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the files.", show_default=False)
    ],
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Fetch the model, the reports and the tables of a job."""
    import json

    with _client(url) as client:
        folder = client.jobs.get(job_id).download(out)
    names = sorted(str(path) for path in folder.iterdir())
    typer.echo(json.dumps(names, indent=2) if as_json else "\n".join(names))


def is_job(place: Path) -> bool:
    """Tell whether an argument is the id of a job rather than a folder.

    Args:
        place: The argument.

    Returns:
        Whether it is.
    """
    return _JOB_ID.fullmatch(str(place)) is not None and not place.exists()


def plan_at_service(job_id: str, spec: PlanSpec, url: str | None) -> BitPlan:
    """Ask a service for another plan.

    Args:
        job_id: The job it is made from.
        spec: What is asked.
        url: Address of the service.

    Returns:
        The plan.
    """
    with _client(url) as client:
        return client.jobs.get(job_id).plan(**spec.model_dump(mode="json"))


def _client(url: str | None) -> Client:
    from bitwright import Client

    return Client(url)


def _follow(job: Job, timeout: float | None = None) -> None:
    try:
        job.wait(timeout, progress=True)
    except KeyboardInterrupt:
        typer.echo(f"The job goes on; bitwright cancel {job.id} ends it.", err=True)
        raise


def _print(job: Job, *, as_json: bool) -> None:
    info = job.info
    if as_json:
        typer.echo(info.model_dump_json(indent=2))
        return
    result = ""
    if info.summary is not None:
        summary = info.summary
        result = f"  {summary.ratio:.3f} of the size, {summary.metric} {summary.metric_quantized:.4g}"
        result += ", not shown to keep its accuracy band" if summary.band_met is False else ""
    elif info.error is not None:
        result = f"  {info.error.message}"
    kind = "" if info.kind == "quantize" else f" ({info.kind})"
    typer.echo(harmless(f"{info.id}  {info.state:<10} {info.progress:4.0%}  {info.model}{kind}{result}"))
