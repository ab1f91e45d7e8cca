"""Connections to the service, which clients and proxies keep for their next request."""

from __future__ import annotations

import socket
import time
from typing import Any

import httpx
import pytest


def _ask(connection: socket.socket) -> bytes:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection.recv(2**16)


@pytest.mark.slow
def test_a_connection_outlasts_the_time_that_clients_keep_it(server: Any) -> None:
    kept = httpx.Limits().keepalive_expiry
    assert kept is not None
    with socket.create_connection(("127.0.0.1", server.port), timeout=900) as connection:
        assert _ask(connection).startswith(b"HTTP/1.1 200")
        time.sleep(kept + 1)
        assert _ask(connection).startswith(b"HTTP/1.1 200")
