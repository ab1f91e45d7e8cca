"""The OpenAPI document, with the schemas that routes refer to by hand."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.api.problems import Problem
from quant_core.spec import QuantizeSpec, Report

DESCRIPTION = """
Send a trained ONNX model and sample inputs; get back a mixed-precision ONNX file that is smaller, runs in
onnxruntime, and keeps its accuracy, with a report of what was decided and why.

1. `POST /quantize` with `model`, `data` and optionally `spec` answers 202 with a job.
2. `GET /jobs/{id}` tells where it stands, `GET /jobs/{id}/events` streams it.
3. `GET /jobs/{id}/model` and `GET /jobs/{id}/report` give the result.

Every error answer is a `Problem`: what is wrong, what to do, where, and the request's id.
"""


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
                [(Problem, "serialization"), (QuantizeSpec, "validation"), (Report, "serialization")],
                ref_template="#/components/schemas/{model}",
            )
            schemas = made.setdefault("components", {}).setdefault("schemas", {})
            for name, schema in extra["$defs"].items():
                schemas.setdefault(name, schema)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
