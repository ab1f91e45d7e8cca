"""`make demo` from start to end; the fake engine makes it quick."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks import demo

ROOT = Path(__file__).parents[2]
FAKE = {
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'app' / 'fakes'}",
    "BITWRIGHT_ENGINE": "fake_engine:quantize",
    "BITWRIGHT_VALIDATOR": "fake_engine:validate",
    "BITWRIGHT_DEVICES": "cpu",
}


def _demo(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.demo", *options],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_the_demo_prints_a_table_and_leaves_the_report(tmp_path: Path) -> None:
    ended = _demo(tmp_path, **FAKE)
    assert ended.returncode == 0, ended.stderr
    assert "smaller" in ended.stdout
    assert str(Path("demo-out") / "report.html") in ended.stdout
    assert (tmp_path / "demo-out" / "report.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["demo-out"]


def test_a_demo_whose_service_does_not_start_says_so(tmp_path: Path) -> None:
    ended = _demo(tmp_path, **{**FAKE, "BITWRIGHT_DEVICES": "abacus"})
    assert ended.returncode == 1
    assert "abacus" in ended.stdout
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--size", "huge"], "size: cannot read 'huge'"), (["--model", "none.onnx"], "none.onnx")],
)
def test_a_demo_that_fails_says_so(
    server: Any,
    tmp_path: Path,
    options: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "service", lambda _: nullcontext(server.url))
    monkeypatch.chdir(tmp_path)
    assert demo.main(options) == 1
    assert f"The demo failed: {words}" in capsys.readouterr().out.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []
