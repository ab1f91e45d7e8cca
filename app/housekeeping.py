"""Removes what is no longer needed: results after their time, uploads nobody uses, contents nothing names."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.jobs.presence import Presence
from app.jobs.store import JobStore
from app.storage import Storage, Uploads

_log = logging.getLogger("bitwright.housekeeping")

_PERIOD = 600.0


@dataclass(frozen=True)
class Collected:
    """What was removed.

    Attributes:
        jobs: Jobs whose results expired.
        contents: Files.
        bytes: Their bytes.
    """

    jobs: int
    contents: int
    bytes: int


def collect(store: JobStore, storage: Storage, uploads: Uploads, result_days: float) -> Collected:
    """Remove what is no longer needed; services that share the storage may go on meanwhile.

    Args:
        store: The jobs.
        storage: Their files.
        uploads: What clients have sent ahead.
        result_days: How long results are kept; 0 for as long as nobody deletes them.

    Returns:
        What was removed.
    """
    expired = store.expire(datetime.now(UTC) - timedelta(days=result_days)) if result_days else ()
    for job_id in expired:
        storage.remove(job_id)
    storage.remove_others(store.ids_with_files)
    contents, size = uploads.sweep()
    return Collected(len(expired), contents, size)


class Housekeeper:
    """A thread that collects now and then."""

    def __init__(
        self, store: JobStore, storage: Storage, uploads: Uploads, result_days: float, presence: Presence
    ) -> None:
        self._parts = (store, storage, uploads, result_days)
        self._presence = presence
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="housekeeper", daemon=True)

    def start(self) -> None:
        """Remove what services of this machine left half made, and start the thread."""
        self._presence.tidy()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(_PERIOD):
            self._presence.tidy()
            try:
                done = collect(*self._parts)
            except Exception:  # the next time may go better: a bucket may be away for a while
                _log.exception("what is no longer needed could not be removed")
            else:
                if done.jobs or done.contents:
                    _log.info(
                        "%d results expired, %d files of %d bytes removed",
                        done.jobs,
                        done.contents,
                        done.bytes,
                    )
