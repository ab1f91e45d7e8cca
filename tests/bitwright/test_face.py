"""What the package shows: its names, and how light it is."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import bitwright
from bitwright import AnalyzeSpec, Budget, QuantizeSpec, errors
from bitwright.options import AnalyzeOptions, QuantizeOptions
from quant_core.spec import WeightOptions

_PROBE = """
import json, sys, time
start = time.process_time()
{code}
seconds = time.process_time() - start
modules = sorted(name for name in sys.modules if "." not in name)
print(json.dumps(dict(seconds=seconds, modules=modules)))
"""


def test_the_exported_names_are_these() -> None:
    assert sorted(bitwright.__all__) == [
        "AnalyzeSpec",
        "AsyncClient",
        "AsyncJob",
        "AuthenticationError",
        "BatchResult",
        "BitwrightError",
        "Budget",
        "Client",
        "ConflictError",
        "ForbiddenError",
        "Health",
        "InvalidRequestError",
        "Job",
        "JobCanceledError",
        "JobFailedError",
        "JobFailure",
        "JobInfo",
        "JobState",
        "JobSummary",
        "LayerRule",
        "NotFoundError",
        "QuantizeRequest",
        "QuantizeSpec",
        "RateLimitedError",
        "Report",
        "ResponseError",
        "SensitivityTable",
        "ServerError",
        "ServiceBusyError",
        "ServiceUnreachableError",
        "WaitTimeoutError",
    ]
    assert all(hasattr(bitwright, name) for name in bitwright.__all__)


def _probe(code: str) -> tuple[float, set[str]]:
    """CPU seconds of a fresh interpreter that runs some code, at best of three, and what it loaded."""
    runs = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", _PROBE.format(code=code)], capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(3)
    ]
    return min(run["seconds"] for run in runs), set(runs[0]["modules"])


def test_importing_loads_nothing_heavy_and_costs_little_more_than_what_it_stands_on() -> None:
    seconds, modules = _probe("from bitwright import *")
    assert {
        "torch",
        "numpy",
        "onnx",
        "onnx_ir",
        "onnxruntime",
        "scipy",
        "fastapi",
        "sqlalchemy",
        "app",
    } & modules == set()
    base, _ = _probe(
        "import asyncio, concurrent.futures, json, tempfile, httpx, pydantic; pydantic.BaseModel"
    )
    assert seconds < 3.5 * base  # a ratio, because other work on the machine slows both
    bare, modules = _probe("import bitwright")
    assert {"httpx", "pydantic", "rich"} & modules == set()
    assert bare < 0.5 * base


def test_both_clients_have_the_same_surface() -> None:
    for one, other in (
        (bitwright.Client, bitwright.AsyncClient),
        (bitwright.Job, bitwright.AsyncJob),
        (type(bitwright.Client("http://x").jobs), type(bitwright.AsyncClient("http://x").jobs)),
    ):
        methods = {name for name in vars(one) if not name.startswith("_")}
        assert methods == {name for name in vars(other) if not name.startswith("_")}
        for name in methods:
            mine, theirs = (str(inspect.signature(getattr(kind, name))) for kind in (one, other))
            assert mine == theirs.replace("Async", ""), name
            assert inspect.iscoroutinefunction(getattr(other, name)), name
    mine, theirs = (inspect.signature(kind).parameters for kind in (bitwright.Client, bitwright.AsyncClient))
    assert mine.keys() == theirs.keys()


def test_every_option_by_name_is_a_field_of_its_request() -> None:
    short = {"bits", "pin", "exclude", "float_activations", "layer_activations", *Budget.model_fields}
    for options, spec in ((QuantizeOptions, QuantizeSpec), (AnalyzeOptions, AnalyzeSpec)):
        unknown = options.__annotations__.keys() - spec.model_fields.keys() - short
        assert unknown == set(), options
        assert WeightOptions.model_fields.keys() <= options.__annotations__.keys()


def test_every_error_belongs_to_the_tree_that_its_file_draws() -> None:
    drawn = {
        line.strip("│├└─ ").split()[0] for line in (errors.__doc__ or "").splitlines() if "Error" in line
    }
    defined = {name for name in vars(errors) if name.endswith("Error")}
    assert drawn == defined
    assert all(issubclass(getattr(errors, name), errors.BitwrightError) for name in defined)
