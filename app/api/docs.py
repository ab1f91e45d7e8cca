"""`/docs`: every route on one plain page without scripts, made from the OpenAPI document."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from html import escape
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "body{color:#1a1a1a;background:#fff}"
    "code,pre{font:14px/1.45 ui-monospace,monospace}pre{background:#f4f4f4;padding:.75rem;overflow-x:auto}"
    "h2{margin-top:2.5rem;border-bottom:1px solid #ccc}table{border-collapse:collapse}"
    "td,th{text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0}summary{cursor:pointer}"
    "@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}pre{background:#242424}a{color:#8cf}}"
)
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; frame-ancestors 'none'"


def install(app: FastAPI) -> None:
    """Serve the page.

    Args:
        app: The application, whose own pages load scripts from elsewhere and must be off.
    """

    @cache
    def page() -> str:
        return render(app.openapi())

    def docs(_: Request) -> HTMLResponse:
        return HTMLResponse(page(), headers={"Content-Security-Policy": _POLICY})

    app.add_route("/docs", docs, methods=["GET"], include_in_schema=False)


def render(document: dict[str, Any]) -> str:
    """Write an OpenAPI document as a page.

    Args:
        document: The document.

    Returns:
        HTML.
    """
    title = f"{document['info']['title']} {document['info']['version']}"
    parts = "".join(
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>{_json(schema)}</details>'
        for name, schema in sorted(document.get("components", {}).get("schemas", {}).items())
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1><p>{escape(document['info'].get('description', ''))}</p>"
        f'<p>For programs: <a href="/openapi.json">/openapi.json</a></p>{parts}<h2>Schemas</h2>{schemas}</body></html>'
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    text = escape(operation.get("description", ""))
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code></h2><p><b>{escape(operation.get('summary', ''))}.</b> "
        f"{text}</p>{_table(_parameters(operation))}{_table(_answers(operation))}"
    )


def _parameters(operation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for parameter in operation.get("parameters", ()):
        yield f"{parameter['name']} ({parameter['in']})", parameter.get("description", "")
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        fields = body.get("schema", {}).get("properties", {})
        for name, field in fields.items():
            yield f"{name} ({media})", field.get("description", "")
        if not fields:
            yield f"body ({media})", _reference(body.get("schema", {}))


def _answers(operation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for status, answer in operation["responses"].items():
        kinds = ", ".join(
            f"{media} {_reference(content.get('schema', {}))}".strip()
            for media, content in answer.get("content", {}).items()
        )
        yield status, f"{answer.get('description', '')} {kinds}".strip()


def _reference(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _table(rows: Iterator[tuple[str, str]]) -> str:
    body = "".join(f"<tr><td><code>{escape(a)}</code></td><td>{escape(b)}</td></tr>" for a, b in rows)
    return f"<table>{body}</table>" if body else ""


def _json(value: object) -> str:
    return f"<pre>{escape(json.dumps(value, indent=1))}</pre>"
