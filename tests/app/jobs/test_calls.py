"""Each webhook is called by one service at a time, on either database."""

from __future__ import annotations

from datetime import timedelta

from app.job import now
from app.jobs.calls import Calls
from app.jobs.database import Database
from app.jobs.store import JobStore, Submission
from quant_core.spec import QuantizeSpec

_DAY = timedelta(days=1)


def _ended(database: Database, name: str) -> None:
    store = JobStore(database)
    address = f"https://me.example/{name}"
    store.create(Submission(name, model="m", data="d", spec=QuantizeSpec(), webhook=address))
    store.cancel(name)


def test_a_call_is_of_one_service_until_it_lets_go_or_is_silent_too_long(database: Database) -> None:
    _ended(database, "j")
    calls = Calls(database)
    assert calls.claim("j", 900) == "ours"
    assert calls.claim("j", 900) == "another's"
    calls.failed("j")
    assert calls.claim("j", -1) == "ours"  # and dies
    assert calls.claim("j", 900) == "ours"
    calls.told("j")
    assert calls.claim("j", 900) == "nobody's"
    assert calls.claim("no such job", 900) == "nobody's"


def test_ended_jobs_are_untold_until_someone_was_called(database: Database) -> None:
    JobStore(database).create(
        Submission("waits", model="m", data="d", spec=QuantizeSpec(), webhook="https://me.example/")
    )
    for name in ("first", "second"):
        _ended(database, name)
    calls, moment = Calls(database), now()
    assert calls.untold(moment - _DAY, moment + _DAY) == ("first", "second")
    assert calls.untold(moment - _DAY, moment - _DAY / 2) == ()
    assert calls.untold(moment + _DAY, moment + 2 * _DAY) == ()
    calls.told("first")
    assert calls.untold(moment - _DAY, moment + _DAY) == ("second",)
    assert (calls.address("first"), calls.address("second")) == (None, "https://me.example/second")
