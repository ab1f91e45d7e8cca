"""The service that the client is tested against is the one that the service's own tests use."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

_PATH = Path(__file__).parents[1] / "app" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("service_fixtures", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
sys.modules["service_fixtures"] = _MODULE  # dataclasses look their module up
_SPEC.loader.exec_module(_MODULE)

make_server = _MODULE.make_server
server = _MODULE.server
own_server = _MODULE.own_server
model_file = _MODULE.model_file
sample_file = _MODULE.sample_file


@pytest.fixture(scope="session", autouse=True)
def one_tree_of_commands() -> Iterator[None]:
    """Build it once, and not in each of hundreds of calls of `main`, most of which it outlasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.main.get_command", functools.cache(typer.main.get_command))
        yield
