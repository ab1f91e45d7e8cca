"""Tells others that a job has ended: a signed request to an address that was given with the job."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.jobs.store import JobStore

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger("bitwright.webhooks")

_TRIES = 5
_PAUSE_SECONDS = 2.0
_TIMEOUT = 10.0
SIGNATURE = "X-Bitwright-Signature"


class Webhooks:
    """One thread that sends what is due. What was not sent when the service ends is not sent later."""

    def __init__(
        self,
        store: JobStore,
        secret: str,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Set it up.

        Args:
            store: The jobs.
            secret: What signatures are made with.
            transport: What carries requests, for tests.
            sleep: Waits between tries.
        """
        self._store = store
        self._secret = secret.encode()
        self._transport = transport
        self._http: httpx.Client | None = None
        self._sleep = sleep
        self._due: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="webhooks", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after what is being sent."""
        self._due.put(None)
        self._thread.join(timeout=_TIMEOUT)
        if self._http is not None:
            self._http.close()

    def ended(self, job_id: str) -> None:
        """Say that a job has ended.

        Args:
            job_id: The job.
        """
        self._due.put(job_id)

    def _work(self) -> None:
        while (job_id := self._due.get()) is not None:
            try:
                self._tell(job_id)
            except Exception:
                _log.exception("the end of job %s could not be told", job_id)

    def _tell(self, job_id: str) -> None:
        address, job = self._store.webhook(job_id), self._store.get(job_id)
        if address is None or job is None:
            return
        import httpx  # with its certificates it weighs as much as all of the routes

        if self._http is None:
            # Redirects are not followed: they would lead past the list of allowed hosts.
            self._http = httpx.Client(
                timeout=_TIMEOUT, transport=self._transport, follow_redirects=False, trust_env=False
            )
        told = job.model_dump(
            mode="json", include={"id", "kind", "state", "error", "summary", "tags", "finished"}
        )
        body = json.dumps(told).encode()
        for number in range(_TRIES):
            try:
                answer = self._http.post(
                    address,
                    content=body,
                    headers={
                        "Content-Type": "application/json",
                        SIGNATURE: sign(self._secret, body, time.time()),
                    },
                )
                if answer.is_success:
                    return
                what = f"status {answer.status_code}"
            except httpx.HTTPError as error:
                what = type(error).__name__
            _log.warning("the end of job %s: try %d failed (%s)", job_id, number + 1, what)
            if number + 1 < _TRIES:
                self._sleep(_PAUSE_SECONDS * 2**number)


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
