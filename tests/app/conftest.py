"""What tests of the service are given: services of their own and shared ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.app.service import Server, gate, make_server, model_file, own_server, sample_file, server

__all__ = ["gate", "make_server", "model_file", "own_server", "sample_file", "server"]


@pytest.fixture
def strict_server(make_server: Callable[..., Server]) -> Iterator[Server]:
    """A service that takes 3 MB at most."""
    running = make_server(BITWRIGHT_UPLOAD_LIMIT=str(3 * 2**20))
    yield running
    running.stop()
