"""What an operator does to the database besides running the service."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import NoReturn

from app import housekeeping
from app.housekeeping import Collected
from app.jobs.store import JobStore
from app.keys import SCOPES, Key, KeyStore, Scope
from app.opening import open_database, open_files, require_database, require_files
from app.settings import Settings
from quant_core.errors import UserError

_LONGEST_NAME = 255


class KeyRequestError(UserError):
    """There is no such key or scope, or no key can have this name."""

    code = "key"


def create_key(
    settings: Settings, name: str, scopes: Iterable[str], requests_per_minute: int, active_jobs: int
) -> tuple[Key, str]:
    """Make a key.

    Args:
        settings: What the service is told from outside.
        name: Whose it is.
        scopes: What it may do.
        requests_per_minute: How many requests a minute it may make.
        active_jobs: How many of its jobs may wait or run at once.

    Returns:
        The key and its secret text.

    Raises:
        KeyRequestError: If the name is none, or there is no such scope.
    """
    if not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise KeyRequestError(
            f"a key's name is one line of 1 to {_LONGEST_NAME} characters.",
            remedy="Name the person or the program that it is for.",
            where="NAME",
        )
    chosen = [_scope(text) for text in scopes]
    with closing(open_database(settings)) as database:
        return KeyStore(database).create(
            name, chosen, requests_per_minute=requests_per_minute, active_jobs=active_jobs
        )


def list_keys(settings: Settings) -> tuple[Key, ...]:
    """List keys.

    Args:
        settings: What the service is told from outside.

    Returns:
        All keys, oldest first.
    """
    require_database(settings)
    with closing(open_database(settings)) as database:
        return KeyStore(database).list()


def renew_key(settings: Settings, key_id: str) -> str:
    """Give a key another secret; services notice within seconds.

    Args:
        settings: What the service is told from outside.
        key_id: The key; where there is none, `KeyRequestError` is raised.

    Returns:
        The new secret text.
    """
    require_database(settings)
    with closing(open_database(settings)) as database:
        token = KeyStore(database).renew(key_id)
    if token is None:
        _refuse_unknown(key_id)
    return token


def revoke_key(settings: Settings, key_id: str) -> None:
    """Revoke a key; services notice within seconds.

    Args:
        settings: What the service is told from outside.
        key_id: The key; where there is none, `KeyRequestError` is raised.
    """
    require_database(settings)
    with closing(open_database(settings)) as database:
        if not KeyStore(database).revoke(key_id):
            _refuse_unknown(key_id)


def collect(settings: Settings) -> Collected:
    """Remove what is no longer needed, whether or not services run meanwhile.

    Args:
        settings: What the service is told from outside.

    Returns:
        What was removed.
    """
    require_database(settings)
    require_files(settings)
    with closing(open_database(settings)) as database:
        return housekeeping.collect(JobStore(database), *open_files(settings), settings.result_days)


def _refuse_unknown(key_id: str) -> NoReturn:
    raise KeyRequestError(
        "there is no such key, or it was revoked before.",
        remedy="List them with `bitwright admin keys list`.",
        where=key_id,
    )


def _scope(text: str) -> Scope:
    for scope in SCOPES:
        if text == scope:
            return scope
    raise KeyRequestError(
        f"{text!r} is not a scope.", remedy=f"Choose from {', '.join(SCOPES)}.", where="--scope"
    )
