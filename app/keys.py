"""Keys: made once, kept as a digest, limited in what they may do and how much of it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import select

from app.job import now
from app.jobs.database import Database
from app.jobs.tables import KeyRow

Scope = Literal["read", "write", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

LOCAL_OWNER = "local"
"""Owns what was sent without a key, where none is asked for."""

_PREFIX = "bw"
_KNOWN_SECONDS = 5.0
_KNOWN_KEYS = 4096


@dataclass(frozen=True)
class Key:
    """What is known of a key; never its secret.

    Attributes:
        id: Its public part, which owns jobs and uploads.
        name: Whose it is, for people.
        scopes: `read` (look at jobs, fetch results), `write` (send, cancel, delete), `metrics`.
        requests_per_minute: How many requests a minute it may make, on average.
        active_jobs: How many of its jobs may wait or run at once.
        created: When it was made.
        revoked: When it was revoked.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    requests_per_minute: int
    active_jobs: int
    created: datetime
    revoked: datetime | None = None


class KeyStore:
    """The keys of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, name: str, scopes: Iterable[Scope], *, requests_per_minute: int = 600, active_jobs: int = 100
    ) -> tuple[Key, str]:
        """Make a key.

        Args:
            name: Whose it is, for people.
            scopes: What it may do.
            requests_per_minute: How many requests a minute it may make.
            active_jobs: How many of its jobs may wait or run at once.

        Returns:
            The key, and the text to send with requests, which is not kept.
        """
        row = KeyRow(
            id=secrets.token_hex(6),
            name=name,
            scopes=sorted(scopes),
            requests_per_minute=requests_per_minute,
            active_jobs=active_jobs,
            created=now(),
        )
        token = _new_token(row.id)
        row.digest = _digest(token)
        with self._database.write() as session:
            session.add(row)
            session.flush()
            return _key(row), token

    def find(self, token: str) -> Key | None:
        """Check what a request was sent with.

        Args:
            token: The text.

        Returns:
            The key; None if there is none, it was revoked, or the secret is another.
        """
        parts = token.split("_", 2)
        if len(parts) != 3 or parts[0] != _PREFIX:
            return None
        with self._database.read() as session:
            row = session.get(KeyRow, parts[1])
            # 256 random bits need no slow hash: they cannot be guessed however fast one tries.
            if row is None or row.revoked is not None or not hmac.compare_digest(row.digest, _digest(token)):
                return None
            return _key(row)

    def list(self) -> tuple[Key, ...]:
        """List keys, oldest first.

        Returns:
            All keys, revoked ones too.
        """
        with self._database.read() as session:
            return tuple(map(_key, session.scalars(select(KeyRow).order_by(KeyRow.created))))

    def renew(self, key_id: str) -> str | None:
        """Give a key another secret; its jobs, uploads and limits stay, and the old secret is good no more.

        Args:
            key_id: The key.

        Returns:
            The text to send with requests; None if there is no such key, or it was revoked.
        """
        with self._database.write() as session:
            row = session.get(KeyRow, key_id, with_for_update=True)
            if row is None or row.revoked is not None:
                return None
            token = _new_token(key_id)
            row.digest = _digest(token)
            return token

    def revoke(self, key_id: str) -> bool:
        """Let a key never be used again; its jobs stay.

        Args:
            key_id: The key.

        Returns:
            False if there is no such key, or it was revoked before.
        """
        with self._database.write() as session:
            row = session.get(KeyRow, key_id, with_for_update=True)
            if row is None or row.revoked is not None:
                return False
            row.revoked = now()
            return True


class KnownKeys:
    """Remembers for some seconds which tokens are good, so that not every request asks the database."""

    def __init__(self, keys: KeyStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock
        self._known: OrderedDict[str, tuple[Key, float]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, token: str) -> Key | None:
        """Check what a request was sent with.

        Args:
            token: The text.

        Returns:
            The key, if it was good some seconds ago; None otherwise.
        """
        digest = _digest(token)
        with self._lock:
            key, until = self._known.get(digest, (None, 0.0))
        if key is not None and self._clock() < until:
            return key
        key = self._keys.find(token)
        with self._lock:
            self._known.pop(digest, None)
            if key is not None:
                self._known[digest] = key, self._clock() + _KNOWN_SECONDS
                if len(self._known) > _KNOWN_KEYS:
                    self._known.popitem(last=False)
        return key


class Allowances:
    """How many requests each key may still make; each service counts for itself.

    A key may save up as many as it has in a minute, and gets them back evenly.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, key: Key) -> float:
        """Count a request.

        Args:
            key: The key.

        Returns:
            0 if it may be made, otherwise in how many seconds it may.
        """
        moment, limit = self._clock(), float(key.requests_per_minute)
        left, since = self._left.get(key.id, (limit, moment))
        left = min(limit, left + (moment - since) * limit / 60)
        if left < 1:
            self._left[key.id] = left, moment
            return (1 - left) * 60 / limit
        self._left[key.id] = left - 1, moment
        return 0.0


def _new_token(key_id: str) -> str:
    return f"{_PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _key(row: KeyRow) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        scopes=frozenset(scope for scope in SCOPES if scope in row.scopes),
        requests_per_minute=row.requests_per_minute,
        active_jobs=row.active_jobs,
        created=row.created,
        revoked=row.revoked,
    )
