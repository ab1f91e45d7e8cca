"""`bitwright admin`: what an operator does to the service's database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitwright.cli.help_pages import SectionedCommand, SectionedGroup

if TYPE_CHECKING:
    from app.settings import Settings

admin = typer.Typer(
    cls=SectionedGroup,
    help="Operate a service: settings, keys, and what is no longer needed.",
    no_args_is_help=True,
)
keys = typer.Typer(cls=SectionedGroup, help="Who may use a service.", no_args_is_help=True)
admin.add_typer(keys, name="keys")

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `list` shows it.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="The service's data folder. Default: data.", show_default=False
    ),
]


@admin.command("settings", cls=SectionedCommand)
def settings(data_dir: DataDir = None) -> None:
    """Print every setting, what it means, and what it is here."""
    told = _settings(data_dir)
    from app.settings_table import settings_table

    typer.echo(settings_table(told))


@keys.command("create", cls=SectionedCommand)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", metavar="SCOPE", help="read, write or metrics; repeat it. Default: read and write."
        ),
    ] = None,
    requests_per_minute: Annotated[
        int, typer.Option("--requests-per-minute", metavar="N", min=1, help="How many requests it may make.")
    ] = 600,
    active_jobs: Annotated[
        int,
        typer.Option(
            "--active-jobs", metavar="N", min=1, help="How many of its jobs may wait or run at once."
        ),
    ] = 100,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it; it is shown this once. The service need not have been started yet."""
    settings = _settings(data_dir)
    from app import admin as operate
    from app.opening import has_database

    known = has_database(settings)
    key, token = operate.create_key(
        settings, name, scopes or ["read", "write"], requests_per_minute, active_jobs
    )
    if not known:
        typer.echo(f"made a new database in {settings.data_dir.absolute()}", err=True)
    typer.echo(f"key {key.id} of {key.name}: {', '.join(sorted(key.scopes))}", err=True)
    typer.echo(token)


@keys.command("list", cls=SectionedCommand)
def show(data_dir: DataDir = None) -> None:
    """List keys; their secrets are not kept."""
    settings = _settings(data_dir)
    from app import admin as operate

    for key in operate.list_keys(settings):
        state = "revoked" if key.revoked else "good"
        limits = f"{key.requests_per_minute}/min, {key.active_jobs} jobs"
        typer.echo(
            f"{key.id}  {state:7}  {key.created:%Y-%m-%d}  {','.join(sorted(key.scopes))}  {limits}  {key.name}"
        )


@keys.command("renew", cls=SectionedCommand)
def renew(key_id: KeyId, data_dir: DataDir = None) -> None:
    """Print another secret for a key that was lost or seen by others; its jobs stay, and the old one is refused."""
    settings = _settings(data_dir)
    from app import admin as operate

    token = operate.renew_key(settings, key_id)
    typer.echo(f"key {key_id} has another secret", err=True)
    typer.echo(token)


@keys.command("revoke", cls=SectionedCommand)
def revoke(key_id: KeyId, data_dir: DataDir = None) -> None:
    """Let a key never be used again; its jobs stay."""
    settings = _settings(data_dir)
    from app import admin as operate

    operate.revoke_key(settings, key_id)
    typer.echo(f"revoked {key_id}", err=True)


@admin.command("gc", cls=SectionedCommand)
def collect(data_dir: DataDir = None) -> None:
    """Remove expired results, uploads nobody uses and contents nothing names; services do it every ten minutes."""
    settings = _settings(data_dir)
    from app import admin as operate

    done = operate.collect(settings)
    typer.echo(f"{done.jobs} results expired, {done.contents} files of {done.bytes} bytes removed")


def _settings(data_dir: Path | None) -> Settings:
    from bitwright.cli import failures
    from bitwright.cli.local import engine

    with engine():
        from app.main import read_settings
    with failures.options(settings=True):
        return read_settings({} if data_dir is None else {"data_dir": data_dir})
