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
    "code{font:14px/1.45 ui-monospace,monospace}h3{margin-top:2rem}table{display:block;overflow-x:auto}"
    "h2{margin-top:2.5rem;border-bottom:1px solid #ccc}table{border-collapse:collapse}"
    "td,th{text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0}"
    "@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}a{color:#8cf}}"
)
_SIGNS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
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
        f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3><p>{escape(schema.get("description", ""))}</p>'
        + _table(_fields(schema))
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


def _parameters(operation: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for parameter in operation.get("parameters", ()):
        yield f"{parameter['name']} ({parameter['in']})", escape(parameter.get("description", ""))
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        fields = body.get("schema", {}).get("properties", {})
        for name, field in fields.items():
            held = _kind(field["contentSchema"]) if "contentSchema" in field else ""
            yield f"{name} ({media})", escape(field.get("description", "")), held
        if not fields:
            yield f"body ({media})", _kind(body.get("schema", {}))


def _answers(operation: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for status, answer in operation["responses"].items():
        kinds = ", ".join(
            f"{escape(media)} {_kind(content.get('schema', {}))}".strip()
            for media, content in answer.get("content", {}).items()
        )
        yield status, f"{escape(answer.get('description', ''))} {kinds}".strip()


def _fields(schema: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, field in schema.get("properties", {}).items():
        default = field.get("default")
        told = "" if default is None else f"; default <code>{escape(json.dumps(default))}</code>"
        needed = "; required" if name in schema.get("required", ()) and "default" not in field else ""
        yield name, f"{_kind(field)}{told}{needed}", escape(field.get("description", ""))


def _kind(schema: dict[str, Any]) -> str:
    """What a value is, in words, with links to the schemas it is made of."""
    if "$ref" in schema:
        name = escape(str(schema["$ref"]).rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for several in ("allOf", "anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(filter(None, map(_kind, schema[several]))))
    if "enum" in schema or "const" in schema:
        choices = schema.get("enum", [schema.get("const")])
        return ", ".join(f"<code>{escape(json.dumps(choice))}</code>" for choice in choices)
    kind = str(schema.get("type", ""))
    items, values = schema.get("items"), schema.get("additionalProperties")
    if kind == "array" and isinstance(items, dict):
        return f"list of {_kind(items)}"
    if kind == "object" and isinstance(values, dict):
        return f"object of {_kind(values)}"
    bounds = "".join(f" {sign} {schema[bound]:g}" for bound, sign in _SIGNS.items() if bound in schema)
    return f"{kind}{escape(bounds)}"


def _table(rows: Iterator[tuple[str, ...]]) -> str:
    body = "".join(
        f"<tr><td><code>{escape(name)}</code></td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    return f"<table>{body}</table>" if body else ""
