"""What the service's own process does without, so that large uploads fit beside it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("numpy", "torch", "onnx", "onnxruntime", "scipy", "alembic", "httpx", "rich", "obstore", "ray")


def test_the_service_loads_nothing_heavy_before_it_is_needed() -> None:
    code = (
        "import sys, tempfile; from pathlib import Path; from app.main import create_app; "
        "from app.settings import Settings; app = create_app(Settings(data_dir=Path(tempfile.mkdtemp()))); "
        "app.state.service.open(); app.state.service.database.close(); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
