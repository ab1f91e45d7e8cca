"""The service that the client is tested against is the one that the service's own tests use."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

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
