"""The service that the client is tested against is the one that the service's own tests use."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import typer.main

from tests.app.service import make_server, model_file, own_server, sample_file, server

__all__ = ["make_server", "model_file", "own_server", "sample_file", "server"]


@pytest.fixture(scope="session", autouse=True)
def one_tree_of_commands() -> Iterator[None]:
    """Build it once, and not in each of hundreds of calls of `main`, most of which it outlasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.main.get_command", functools.cache(typer.main.get_command))
        yield
