"""Tells others that a job has ended: a signed request to an address that was given with the job."""

from __future__ import annotations

import hashlib
import heapq
import hmac
import itertools
import json
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from app.jobs.calls import Calls
from app.jobs.database import Database
from app.jobs.store import JobStore

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger("bitwright.webhooks")

_TRIES = 5
_PAUSE_SECONDS = 2.0
_TIMEOUT = 10.0
_CLAIM = 60.0
"""Seconds after which a service that called and noted nothing is taken for dead."""
_PERIOD = 600.0
"""Seconds between two looks for what other services left untold."""
_GRACE = timedelta(minutes=5)
"""How long a service is left alone with the jobs that ended with it."""
_KEPT = timedelta(days=1)
"""How long the end of a job is worth telling of."""
SIGNATURE = "X-Bitwright-Signature"


class Webhooks:
    """A thread for each host that is told, so that one that hangs delays no other.

    A call that failed waits for its next try beside the others of its host. What was not sent when a service ends, the
    next one that starts sends, or one that runs, which looks now and then. Of services that are at the same call, one
    makes it at a time.
    """

    def __init__(
        self,
        database: Database,
        secret: str,
        allowed: Container[str],
        transport: httpx.BaseTransport | None = None,
        pause: float = _PAUSE_SECONDS,
    ) -> None:
        """Set it up.

        Args:
            database: The jobs' database.
            secret: What signatures are made with.
            allowed: Hosts that may be told.
            transport: What carries requests, for tests.
            pause: Seconds between the first try and the second; they double from try to try.
        """
        self._store = JobStore(database)
        self._calls = Calls(database)
        self._secret = secret.encode()
        self._allowed = allowed
        self._transport = transport
        self._http: httpx.Client | None = None
        self._lock = threading.Lock()
        self._pause = pause
        self._due: queue.Queue[str | None] = queue.Queue()
        self._hosts: dict[str, _Host] = {}
        self._thread = threading.Thread(target=self._work, name="webhooks", daemon=True)

    def start(self) -> None:
        """Start to send, first what a service that has ended did not."""
        if self._secret:
            self._look(datetime.now(UTC) + _KEPT)
        self._thread.start()

    def stop(self) -> None:
        """End the threads after what is being sent, and what can be within a few seconds."""
        deadline = time.monotonic() + _TIMEOUT
        self._due.put(None)
        self._thread.join(timeout=_TIMEOUT)
        for host in tuple(self._hosts.values()):
            host.end(deadline)
        for host in tuple(self._hosts.values()):
            host.thread.join(timeout=max(0.0, deadline - time.monotonic()))
        if self._http is not None:
            self._http.close()

    def ended(self, job_id: str) -> None:
        """Say that a job has ended.

        Args:
            job_id: The job.
        """
        self._due.put(job_id)

    def _work(self) -> None:
        next_look = time.monotonic() + _PERIOD
        while True:
            try:
                job_id = self._due.get(timeout=max(0.0, next_look - time.monotonic()))
            except queue.Empty:
                next_look = time.monotonic() + _PERIOD
                self._look_again()
                continue
            if job_id is None:
                return
            try:
                self._hand_over(job_id)
            except Exception:
                _log.exception("the end of job %s could not be told", job_id)

    def _look(self, before: datetime) -> None:
        for job_id in self._calls.untold(datetime.now(UTC) - _KEPT, before):
            self.ended(job_id)

    def _look_again(self) -> None:
        if self._secret:
            try:
                self._look(datetime.now(UTC) - _GRACE)
            except Exception:  # the database may be away for a while
                _log.exception("no look was taken for jobs whose end was not told")

    def _hand_over(self, job_id: str) -> None:
        address, job = self._calls.address(job_id), self._store.get(job_id)
        if address is None or job is None:
            return
        told = job.model_dump(
            mode="json", include={"id", "kind", "state", "error", "summary", "tags", "finished"}
        )
        name = urlsplit(address).hostname or ""
        if name not in self._allowed:  # any more: it was when the job was taken
            _log.warning(
                "the end of job %s is not told: BITWRIGHT_WEBHOOK_HOSTS does not list %s", job_id, name
            )
            return
        if name not in self._hosts:
            self._hosts[name] = _Host(name, self._post, self._calls, self._pause)
        self._hosts[name].add(_Call(job_id, address, json.dumps(told).encode()))

    def _post(self, call: _Call) -> str | None:
        """Send once, and tell what went wrong."""
        import httpx

        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Bitwright",
            SIGNATURE: sign(self._secret, call.body, time.time()),
        }
        try:
            answer = self._client().post(call.address, content=call.body, headers=headers)
        except httpx.HTTPError as error:
            return type(error).__name__
        return None if answer.is_success else f"status {answer.status_code}"

    def _client(self) -> httpx.Client:
        import httpx  # with its certificates it weighs as much as all of the routes

        with self._lock:
            if self._http is None:
                # Redirects are not followed: they would lead past the list of allowed hosts.
                self._http = httpx.Client(
                    timeout=_TIMEOUT, transport=self._transport, follow_redirects=False, trust_env=False
                )
            return self._http


@dataclass(frozen=True)
class _Call:
    """The end of one job, as it is told."""

    job_id: str
    address: str
    body: bytes
    tries: int = 0


@dataclass(frozen=True, order=True)
class _Due:
    """A call and when it is to be made; of those at one time the one that came first."""

    moment: float
    number: int
    call: _Call = field(compare=False)


class _Host:
    """Tells one host of all that concerns it: one call after another, in the order in which they are due."""

    def __init__(self, name: str, post: Callable[[_Call], str | None], calls: Calls, pause: float) -> None:
        self._post = post
        self._calls = calls
        self._pause = pause
        self._numbers = itertools.count()
        self._due: list[_Due] = []
        self._changed = threading.Condition()
        self._end: float | None = None
        self.thread = threading.Thread(target=self._work, name=f"webhooks of {name}", daemon=True)
        self.thread.start()

    def add(self, call: _Call, after: float = 0.0) -> None:
        """Make a call after so many seconds; nothing happens where it is waiting already."""
        with self._changed:
            if any(due.call.job_id == call.job_id for due in self._due):
                return
            heapq.heappush(self._due, _Due(time.monotonic() + after, next(self._numbers), call))
            self._changed.notify()

    def end(self, moment: float) -> None:
        """Make what is due by then, and no more."""
        with self._changed:
            self._end = moment
            self._changed.notify()

    def _work(self) -> None:
        while (call := self._next()) is not None:
            try:
                self._tell(call)
            except Exception:
                _log.exception("the end of job %s could not be told", call.job_id)

    def _next(self) -> _Call | None:
        with self._changed:
            while True:
                soonest, now = self._due[0].moment if self._due else math.inf, time.monotonic()
                if self._end is not None and max(soonest, now) > self._end:
                    for due in self._due:
                        _log.warning("the end of job %s is not told yet: the service stops", due.call.job_id)
                    return None
                if soonest <= now:
                    return heapq.heappop(self._due).call
                self._changed.wait(None if soonest == math.inf else soonest - now)

    def _tell(self, call: _Call) -> None:
        turn = self._calls.claim(call.job_id, _CLAIM)
        if turn != "ours":
            if turn == "another's":  # which may die of it
                self.add(call, _CLAIM)
            return
        failed = self._post(call)
        if failed is None:
            self._calls.told(call.job_id)
            return
        tries = call.tries + 1
        _log.warning("the end of job %s: try %d of %d failed (%s)", call.job_id, tries, _TRIES, failed)
        if tries < _TRIES:
            self._calls.failed(call.job_id)
            self.add(replace(call, tries=tries), self._pause * 2 ** (tries - 1))
        else:
            self._calls.told(call.job_id)


def sign(secret: bytes, body: bytes, moment: float) -> str:
    """Sign a body so that whoever has the secret can tell that it is ours and of now.

    `v1 = HMAC-SHA256(secret, "<t>." + body)`, in hexadecimal, with `t` in seconds since the epoch.

    Args:
        secret: The secret.
        body: What is sent.
        moment: Seconds since the epoch.

    Returns:
        The header's value, `t=...,v1=...`.
    """
    stamp = str(int(moment))
    digest = hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={digest}"
