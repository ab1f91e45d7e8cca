"""Keeps a service's leases alive and takes over the jobs of services that have died."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import OperationalError

from app.job import Job
from app.jobs.leases import Leases
from app.jobs.presence import Presence
from app.storage import Storage

_log = logging.getLogger("bitwright.jobs")


@dataclass(frozen=True)
class Rhythm:
    """How leases are kept.

    Attributes:
        renew_seconds: Seconds between renewals.
        lease_seconds: How long a lease lasts without one.
        max_interruptions: A job that lost its service this often fails.
    """

    renew_seconds: float = 10.0
    lease_seconds: float = 90.0
    max_interruptions: int = 2


class Heartbeat:
    """One thread, apart from the supervisor's, so that no slow upload of results costs a lease."""

    def __init__(
        self,
        leases: Leases,
        storage: Storage,
        presence: Presence,
        rhythm: Rhythm,
        on_taken: Callable[[tuple[Job, ...]], None],
    ) -> None:
        """Set it up.

        Args:
            leases: The leases of this service.
            storage: Where jobs that end have files.
            presence: Tells which services of this machine have died.
            rhythm: How leases are kept.
            on_taken: Told which jobs were taken from dead services.
        """
        self._leases = leases
        self._storage = storage
        self._presence = presence
        self._rhythm = rhythm
        self._on_taken = on_taken
        self._renewed = time.monotonic()
        self._patient_until = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Take over what is left behind, and start the thread."""
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    @property
    def silent(self) -> bool:
        """Whether the leases must be presumed lost, because none could be renewed for their whole length."""
        return time.monotonic() - self._renewed > self._rhythm.lease_seconds

    def beat(self) -> None:
        """Renew once, and look for the dead."""
        started, pause = time.monotonic(), 2 * self._rhythm.renew_seconds
        self._leases.renew()
        if started - self._renewed > pause:
            # Who was cut off from the database finds the leases of all who were cut off with it at their end.
            self._patient_until = started + max(pause, self._rhythm.lease_seconds)
        self._renewed = started
        dead = self._presence.dead()
        patient = started < self._patient_until
        taken = self._leases.take_over(self._rhythm.max_interruptions, dead, silent_too=not patient)
        for holder in dead:
            self._presence.bury(holder)
        for job in taken:
            _log.warning(
                "job %s, attempt %d: its service is gone; %s",
                job.id,
                job.attempt,
                job.state,
                extra={"job": job.id},
            )
            if job.ended:
                self._storage.remove(job.id)
        if taken:
            self._on_taken(taken)

    def _work(self) -> None:
        while not self._stop.wait(self._rhythm.renew_seconds):
            try:
                self.beat()
            except OperationalError as error:
                _log.warning(
                    "leases of %g s could not be renewed: %s", self._rhythm.lease_seconds, error.orig
                )
            except Exception:
                _log.exception("leases could not be renewed; they last %g s", self._rhythm.lease_seconds)
