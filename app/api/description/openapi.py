"""The OpenAPI document, with the schemas that routes refer to by hand."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.api.description.described import describe
from app.api.description.report_example import REPORT
from app.api.problems import Problem, responses
from app.api.schemas import JOB_ID
from quant_core.spec import AnalyzeSpec, QuantizeSpec, Report, SensitivityTable

DESCRIPTION = """
Send a trained ONNX model and sample inputs; get back a mixed-precision ONNX file that is smaller, runs in
onnxruntime, and keeps its accuracy, with a report of what was decided and why.

1. `POST /quantize` with `model`, `data` and optionally `spec` answers 202 with a job.
2. `GET /jobs/{id}` tells where it stands, `GET /jobs/{id}/events` streams it.
3. `GET /jobs/{id}/model` and `GET /jobs/{id}/report` give the result.

Every error answer is a `Problem`: what is wrong, what to do, where, and the request's id.
"""


_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "Where the service asks for keys: `bitwright admin keys create` makes one.",
}
_OPEN = frozenset({"/healthz", "/readyz"})


def install(app: FastAPI) -> None:
    """Make an application describe itself completely.

    Args:
        app: The application, with all of its routes.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            _, extra = models_json_schema(
                [
                    (Problem, "serialization"),
                    (QuantizeSpec, "validation"),
                    (QuantizeSpec, "serialization"),
                    (AnalyzeSpec, "validation"),
                    (AnalyzeSpec, "serialization"),
                    (SensitivityTable, "serialization"),
                    (Report, "serialization"),
                ],
                ref_template="#/components/schemas/{model}",
            )
            schemas = made.setdefault("components", {}).setdefault("schemas", {})
            # Requests are forms, which FastAPI sees no spec in: it calls those of answers by the bare name.
            for spec in (QuantizeSpec, AnalyzeSpec):
                del schemas[spec.__name__]
                _rename(made, spec.__name__, f"{spec.__name__}-Output")
            for name, schema in extra["$defs"].items():
                schemas.setdefault(name, schema)
            for address, path in made["paths"].items():
                for operation in path.values():
                    _complete(operation)
                    _refusals(operation, address)
            made["components"]["securitySchemes"] = {"key": _KEY}
            made["security"] = [{}, {"key": []}]  # on loopback nobody is asked
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            describe(schemas)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _rename(part: Any, name: str, other: str) -> None:
    if isinstance(part, list):
        for one in part:
            _rename(one, name, other)
    elif isinstance(part, dict):
        if part.get("$ref") == f"#/components/schemas/{name}":
            part["$ref"] = f"#/components/schemas/{other}"
        for one in part.values():
            _rename(one, name, other)


def _complete(operation: dict[str, Any]) -> None:
    # FastAPI adds its own 422 to whatever has a parameter; here a job id is any text, and errors are Problems.
    invalid = operation["responses"].get("422", {})
    if "HTTPValidationError" in str(invalid):
        del operation["responses"]["422"]
    for parameter in operation.get("parameters", ()):
        if parameter["name"] == "job_id":
            parameter["example"] = JOB_ID
    # The first page of a real report says more than a list of fields.
    report = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
    if report.get("schema", {}).get("$ref", "").endswith("/Report"):
        report["example"] = REPORT


def _refusals(operation: dict[str, Any], address: str) -> None:
    """Any request can be refused for its address, its key, or a database that is away; bodies for type and packing."""
    statuses = () if address in _OPEN else (400, 401, 403, 429, 503)
    if "requestBody" in operation:
        statuses = (*statuses, 415)
    for status, described in responses(*statuses).items():
        operation["responses"].setdefault(str(status), described)
    operation["responses"] = dict(sorted(operation["responses"].items()))
