"""The three ways of use that the README shows: each command is run as it stands there, against a real service."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

ROOT = Path(__file__).parents[2]
SERVICE = "http://127.0.0.1:8000"


def _blocks(page: str, section: str) -> list[tuple[str, str]]:
    """Language and text of each block of code below a heading."""
    text = re.split(rf"^## {re.escape(section)}$", page, flags=re.MULTILINE)[1]
    return re.findall(
        r"^```(\w*)\n(.*?)^```", re.split(r"^## ", text, flags=re.MULTILINE)[0], re.MULTILINE | re.DOTALL
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds the files that the page's commands name."""
    data = ROOT / "benchmarks" / "data"
    (tmp_path / "model.onnx").write_bytes((data / "resnet20_cifar10.onnx").read_bytes())
    with np.load(data / "cifar10_calibration.npz") as samples:
        np.savez(tmp_path / "samples.npz", input=samples["input"][:32], labels=samples["labels"][:32])
    return tmp_path


def test_every_block_of_commands_is_run_by_a_test() -> None:
    page = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    ways = _blocks(page, "Three ways to use it")
    first, *others = blocks
    assert others == ways  # run below
    assert [line.split("#")[0].strip() for line in first[1].splitlines()] == ["make demo", "make test"]
    targets = (ROOT / "Makefile").read_text()
    assert "-m benchmarks.demo" in targets.partition("\ndemo:")[2].partition("\n\n")[0]  # run by test_demo.py
    assert "-m pytest" in targets.partition("\ntest:")[2].partition("\n\n")[0]


@pytest.mark.slow
def test_each_way_of_use_works_as_the_page_shows_it(make_server: Callable[..., Any], folder: Path) -> None:
    blocks = _blocks((ROOT / "README.md").read_text(), "Three ways to use it")
    assert [language for language, _ in blocks] == ["", "", "python"]
    server = make_server(
        BITWRIGHT_ENGINE="quant_core.pipeline:quantize",
        BITWRIGHT_VALIDATOR="quant_core.pipeline:validate",
        OMP_NUM_THREADS="1",
    )
    place = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": place, "OMP_NUM_THREADS": "1", "NO_PROXY": "*"}

    def run(command: str | list[str]) -> str:
        ended = subprocess.run(
            command,
            shell=isinstance(command, str),
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stderr}"
        return ended.stdout

    job, ran = "", []
    for _, text in blocks[:2]:
        for line in text.splitlines():
            if line.startswith("pip install"):  # what this test runs in is installed so
                continue
            said = run(line.replace(SERVICE, server.url).replace("JOB", job))
            ran.append(line.split()[0])
            if "/quantize" in line and line.startswith("curl"):
                job = json.loads(said)["id"]
                server.wait_for(job, "succeeded", "failed")
    assert ran == ["bitwright", "bitwright", "curl", "curl", "curl"]
    by_command, by_http = (
        (folder / name).read_bytes() for name in ("result/model.onnx", "model.quantized.onnx")
    )
    assert by_command == by_http
    page = re.sub(r"\s+", " ", (ROOT / "README.md").read_text())
    for inline in re.findall(
        rf"`((?:curl [^`]*{SERVICE}|bitwright plan )[^`]*)`", page
    ):  # those given in full
        run(inline.replace(SERVICE, server.url))
        ran.append(inline.split()[0])
    assert ran[5:] == ["bitwright", "curl"]
    upload = re.search(r"then `(-F model=[^`]*)`", page)
    assert upload is not None
    sent = run(f"curl {upload[1]} -F data=@samples.npz -F 'spec={{\"size\": 0.18}}' {server.url}/quantize")
    server.http.delete(f"/jobs/{json.loads(sent)['id']}")
    run([sys.executable, "-c", blocks[2][1].replace(SERVICE, server.url)])
    assert (folder / "result" / "model.onnx").read_bytes() == by_http
    onnx.checker.check_model(onnx.load_from_string(by_http))
    assert len(by_http) < 0.2 * (folder / "model.onnx").stat().st_size
    assert (folder / "result" / "report.html").is_file()
    server.stop()
