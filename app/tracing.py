"""Spans of requests and of jobs for OpenTelemetry; off unless an endpoint for them is named."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.job import Job
from quant_core.errors import UserError
from quant_core.spec import Progress, Stage

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class TracingError(UserError):
    """Spans were asked for, and what sends them is not installed."""

    code = "tracing"


class Tracing:
    """Makes spans. What it is told of comes as HTTP requests, attempts at jobs, and their stages."""

    def __init__(self, provider: TracerProvider) -> None:
        """Speak through a provider.

        Args:
            provider: Where spans go.
        """
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("bitwright", version("bitwright"))
        self._words = TraceContextTextMapPropagator()

    def here(self) -> str | None:
        """Name the span that is open here, to be linked to later.

        Returns:
            It in the words of W3C's `traceparent`.
        """
        carrier: dict[str, str] = {}
        self._words.inject(carrier)
        return carrier.get("traceparent")

    @contextmanager
    def request(self, scope: Scope) -> Iterator[Span]:
        """Open the span of a request, below the client's where it names one.

        Args:
            scope: The request.

        Yields:
            The span.
        """
        from opentelemetry.trace import SpanKind

        above = self._words.extract(dict(Headers(scope=scope)))
        told = {"http.request.method": scope["method"], "url.path": scope["path"]}
        with self._tracer.start_as_current_span(
            scope["method"], context=above, kind=SpanKind.SERVER, attributes=told
        ) as span:
            yield span

    def attempt(self, job: Job) -> AttemptTrace:
        """Open the span of an attempt at a job, linked to the request that sent the job.

        Args:
            job: The job as it was claimed.

        Returns:
            What to tell its steps.
        """
        from opentelemetry import trace
        from opentelemetry.context import Context

        sent = trace.get_current_span(self._words.extract({"traceparent": job.trace or ""}))
        linked = sent.get_span_context()
        span = self._tracer.start_span(
            f"job {job.kind}",
            context=Context(),
            links=[trace.Link(linked)] if linked.is_valid else [],
            attributes={"bitwright.job_id": job.id, "bitwright.attempt": job.attempt},
        )
        return AttemptTrace(self._tracer, span)

    def stop(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class AttemptTrace:
    """The span of an attempt, and of the stage that it is in."""

    def __init__(self, tracer: Any, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._stage: tuple[Stage, Span] | None = None

    def note(self, steps: Iterable[Progress]) -> None:
        """Take in what the attempt said.

        Args:
            steps: Its steps since the last look, oldest first.
        """
        from opentelemetry.trace import set_span_in_context

        for step in steps:
            if self._stage is None or step.stage != self._stage[0]:
                self._leave_stage()
                inside = set_span_in_context(self._span)
                self._stage = step.stage, self._tracer.start_span(f"stage {step.stage}", context=inside)

    def end(self, state: str, error: str | None) -> None:
        """Close the spans.

        Args:
            state: What became of the attempt.
            error: The error's code, if there is one.
        """
        from opentelemetry.trace import StatusCode

        self._leave_stage()
        self._span.set_attribute("bitwright.state", state)
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()

    def _leave_stage(self) -> None:
        if self._stage is not None:
            self._stage[1].end()
        self._stage = None


class TracingMiddleware:
    """Opens a span for every request."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request.

        Args:
            scope: The connection.
            receive: Where messages come from.
            send: Where messages go.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._tracing.request(scope) as span:

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _describe(span, scope, message)
                await send(message)

            await self._app(scope, receive, noting)


def open_tracing(environment: Mapping[str, str] = os.environ) -> Tracing | None:
    """Send spans where the environment says; the other variables of OpenTelemetry are heeded as well.

    Args:
        environment: The environment.

    Returns:
        What makes them; None where no endpoint is named.

    Raises:
        TracingError: If what sends them is not installed.
    """
    if not any(environment.get(name) for name in _ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise TracingError(
            "spans are asked for, and OpenTelemetry is not installed.",
            remedy="In a clone: pip install '.[otel]'; or leave the endpoint out.",
            where=next(name for name in _ENDPOINTS if environment.get(name)),
        ) from error
    named = {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": "bitwright"}
    provider = TracerProvider(resource=Resource.create({**named, "service.version": version("bitwright")}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def _describe(span: Span, scope: Scope, start: Message) -> None:
    status = start["status"]
    route = getattr(scope.get("route"), "path", None)
    span.set_attribute("http.response.status_code", status)
    request_id = scope.get("state", {}).get("request_id")
    if request_id is not None:
        span.set_attribute("bitwright.request_id", request_id)
    if route is not None:
        span.set_attribute("http.route", route)
        span.update_name(f"{scope['method']} {route}")
    if status >= 500:
        from opentelemetry.trace import StatusCode

        span.set_status(StatusCode.ERROR)
