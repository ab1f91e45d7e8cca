"""What no client of ours would send: requests made up from the OpenAPI document, and damaged models."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks.recipes.mutations import MUTATIONS, mutate

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[2] / "benchmarks" / "data"
REAL = {
    "BITWRIGHT_ENGINE": "quant_core.pipeline:quantize",
    "BITWRIGHT_VALIDATOR": "quant_core.pipeline:validate",
    "BITWRIGHT_ANALYZER": "quant_core.analysis:analyze",
    "BITWRIGHT_ANALYSIS_VALIDATOR": "quant_core.analysis:validate",
    "BITWRIGHT_CHECK_TIMEOUT": "900",
}
_CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "unsupported_method,response_schema_conformance"
)


@pytest.fixture
def service(make_service: Callable[..., Any]) -> Iterator[Any]:
    return make_service()


@pytest.fixture
def real_service(make_service: Callable[..., Any]) -> Iterator[Any]:
    return make_service(**REAL)


def test_every_request_made_from_the_document_is_answered_as_it_says(service: Any, tmp_path: Path) -> None:
    done = service.submit()
    service.wait_for(done, "succeeded")
    program = Path(sys.executable).parent / "schemathesis"
    run = subprocess.run(
        [
            str(program), "run", f"{service.url}/openapi.json",
            "--checks", _CHECKS,
            "--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--seed", "1",
            "--request-timeout", "900", "--suppress-health-check", "all", "--no-color",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=3600,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    cases = re.search(r"(\d+) generated", run.stdout)
    assert cases is not None, run.stdout[-3000:]
    print(f"measured: {cases[1]} requests made from the OpenAPI document, all answered as it says")
    assert int(cases[1]) > 200
    assert service.process.poll() is None
    assert "Traceback" not in service.folder.with_suffix(".log").read_text()


def test_no_damaged_model_ends_a_process_of_the_service(real_service: Any) -> None:
    model = onnx.load(DATA / "resnet20_cifar10.onnx")
    buffer = io.BytesIO()
    with np.load(DATA / "cifar10_calibration.npz") as full:
        np.savez(buffer, input=full["input"][:4])
    children, answers = real_service.children(), []
    for number, kind in enumerate(sorted(MUTATIONS)):
        damaged = mutate(model, kind, random.Random(number))
        answer = real_service.post(model=damaged, data=buffer.getvalue())
        answers.append(answer.status_code)
        assert answer.status_code in {202, 400, 413, 422}, (kind, answer.text)
        assert "crashed the process" not in answer.text, kind
        if answer.status_code == 202:
            real_service.http.delete(f"/jobs/{answer.json()['id']}")
    print(f"measured: {len(answers)} damaged models, {answers.count(202)} accepted")
    assert answers.count(422) > 0
    assert real_service.process.poll() is None
    assert real_service.answers()
    assert children & real_service.children()  # the one that checks
