"""Keys are found by their secret alone, limited, and revoked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.admin import KeyRequestError, create_key
from app.job import now
from app.jobs.database import Database, sqlite_url
from app.keys import Allowances, Key, KeyStore, KnownKeys
from app.settings import Settings


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    made = Database(sqlite_url(tmp_path / "jobs.sqlite"))
    yield KeyStore(made)
    made.close()


def test_a_key_is_known_by_its_whole_text_and_kept_without_it(keys: KeyStore, tmp_path: Path) -> None:
    key, token = keys.create("me", ["write", "read"], requests_per_minute=5, active_jobs=2)
    other, other_token = keys.create("you", ["read"])
    assert keys.find(token) == key
    assert key.scopes == {"read", "write"}
    assert keys.find(other_token) == other
    secret = token.split("_", 2)[2]
    for wrong in (
        "",
        "bw",
        token[:-1],
        token + "x",
        f"bw_{other.id}_{secret}",
        f"xx_{key.id}_{secret}",
        secret,
    ):
        assert keys.find(wrong) is None
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("jobs.sqlite*"))
    assert key.id.encode() in stored
    assert secret.encode() not in stored


def test_a_revoked_key_is_refused_after_some_seconds_at_most(keys: KeyStore) -> None:
    key, token = keys.create("me", ["read"])
    moment = [0.0]
    known = KnownKeys(keys, clock=lambda: moment[0])
    assert known.find(token) == key
    assert keys.revoke(key.id)
    assert not keys.revoke(key.id)
    assert not keys.revoke("nothing")
    assert keys.find(token) is None
    moment[0] = 4.9
    assert known.find(token) == key
    moment[0] = 5.1
    assert known.find(token) is None
    assert [found.revoked is not None for found in keys.list()] == [True]


def test_a_renewed_key_is_the_same_with_another_secret(keys: KeyStore) -> None:
    key, token = keys.create("me", ["read"], active_jobs=3)
    renewed = keys.renew(key.id)
    assert renewed is not None
    assert renewed != token
    assert keys.find(token) is None
    assert keys.find(renewed) == key
    assert keys.renew("nothing") is None
    assert keys.revoke(key.id)
    assert keys.renew(key.id) is None


def test_requests_are_allowed_evenly_after_the_first_minute_is_spent() -> None:
    moment = [0.0]
    allowances = Allowances(clock=lambda: moment[0])
    key = Key("a", "me", frozenset(), requests_per_minute=6, active_jobs=1, created=now())
    assert [allowances.take(key) for _ in range(6)] == [0.0] * 6
    assert allowances.take(key) == pytest.approx(10.0)
    moment[0] = 9.0
    assert allowances.take(key) == pytest.approx(1.0)
    moment[0] = 10.0
    assert allowances.take(key) == 0.0
    assert allowances.take(key) == pytest.approx(10.0)
    moment[0] = 1e6  # no more is saved up than a minute's
    assert [allowances.take(key) == 0.0 for _ in range(7)] == [True] * 6 + [False]


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "\x1b[2J", "n" * 256])
def test_a_key_without_a_name_that_can_be_shown_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyRequestError, match="one line"):
        create_key(Settings(data_dir=tmp_path), name, ["read"], 1, 1)
