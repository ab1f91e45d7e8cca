"""What all tests share.

Property tests are not held to times, which say more of the machine than of the code, and draw the same examples each
time, so that none fails by chance; `make test-slow` draws others. No fast test speaks TLS, and every client of httpx
would read the certificates of all authorities for it: it is given one. (None would not do: clients of buckets refuse to
start.) Slow tests fetch models, and keep those of the machine.
"""

import logging
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")
settings.register_profile("anew", settings.get_profile("same"), derandomize=False, max_examples=1000)
_AT_FIRST: dict[str, Any] = {}
_OF_THE_MACHINE = {name: os.environ.pop(name, None) for name in ("SSL_CERT_DIR", "SSL_CERT_FILE")}
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "data" / "authority.pem")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a test draws without a generator, or from one of its module, is the same whichever tests ran before."""
    random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
    module = getattr(item, "module", None)
    for name, found in vars(module).items() if module else ():
        if isinstance(found, np.random.Generator):
            kept = _AT_FIRST.setdefault(f"{module.__name__}.{name}", found.bit_generator.state)
            found.bit_generator.state = kept


@pytest.fixture(autouse=True)
def certificates(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give slow tests the certificates of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("slow"):
            patch.delenv("SSL_CERT_FILE")
            for name, value in _OF_THE_MACHINE.items():
                if value is not None:
                    patch.setenv(name, value)
        yield


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """Whatever a test hides of the log, the next one sees."""
    level, hidden = logging.root.level, logging.root.manager.disable
    yield
    logging.root.setLevel(level)
    logging.disable(hidden)
