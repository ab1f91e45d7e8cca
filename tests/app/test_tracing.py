"""Spans of requests, jobs and stages: what they say, how they hang together, and that nobody pays who did not ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SentSpan
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from app.job import Job, now
from app.tracing import AttemptTrace, Tracing, TracingError, TracingMiddleware, open_tracing
from quant_core.spec import Progress, QuantizeSpec

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    """Keeps what is sent."""
    return InMemorySpanExporter()


@pytest.fixture
def tracing(spans: InMemorySpanExporter) -> Tracing:
    """Sends there at once."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Tracing(provider)


def _attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_request_has_a_span_below_its_clients(tracing: Tracing, spans: InMemorySpanExporter) -> None:
    seen: list[str | None] = []

    def answer(request: Request) -> PlainTextResponse:
        seen.append(tracing.here())
        return PlainTextResponse("no", status_code=503)

    app = Starlette(routes=[Route("/jobs/{job_id}", answer)])
    app.add_middleware(TracingMiddleware, tracing=tracing)

    async def asked() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as http:
            return (await http.get("/jobs/j?key=secret", headers={"traceparent": PARENT})).status_code

    assert asyncio.run(asked()) == 503
    (span,) = spans.get_finished_spans()
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
    told = _attributes(span)
    assert told["http.response.status_code"] == 503
    assert told["url.path"] == "/jobs/j"
    assert "secret" not in str(told)
    assert span.status.status_code.name == "ERROR"
    assert seen == [f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"]
    assert tracing.here() is None


def _job(trace: str | None) -> Job:
    return Job(
        id="j", kind="quantize", state="validating", stage=None, stage_progress=0, progress=0, message="",
        cancel_requested=False, attempt=2, tags=(), model="m", data="d", spec=QuantizeSpec(), error=None,
        summary=None, created=now(), started=None, finished=None, trace=trace,
    )  # fmt: skip


def _follow(attempt: AttemptTrace, *stages: Any) -> None:
    for stage in stages:
        attempt.note([Progress(stage=stage, fraction=0.0), Progress(stage=stage, fraction=1.0)])


def test_an_attempt_is_linked_to_the_request_and_has_a_span_for_each_stage(
    tracing: Tracing, spans: InMemorySpanExporter
) -> None:
    attempt = tracing.attempt(_job(PARENT))
    _follow(attempt, "ingest", "rounding", "sensitivity")
    attempt.end("failed", "out_of_memory")
    *stages, whole = spans.get_finished_spans()
    assert [span.name for span in stages] == ["stage ingest", "stage rounding", "stage sensitivity"]
    assert whole.name == "job quantize"
    assert whole.parent is None
    assert whole.context is not None
    (link,) = whole.links
    assert f"{link.context.trace_id:032x}-{link.context.span_id:016x}" == PARENT[3:-3]
    assert all(span.parent is not None and span.parent.span_id == whole.context.span_id for span in stages)
    assert _attributes(whole) == {
        "bitwright.job_id": "j",
        "bitwright.attempt": 2,
        "bitwright.state": "failed",
        "error.type": "out_of_memory",
    }


def test_a_job_of_an_untraced_request_is_linked_to_nothing(
    tracing: Tracing, spans: InMemorySpanExporter
) -> None:
    tracing.attempt(_job(None)).end("succeeded", None)
    (whole,) = spans.get_finished_spans()
    assert not whole.links
    assert whole.status.status_code.name == "UNSET"


def test_nothing_is_made_where_no_endpoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_tracing({}) is None
    assert open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}) is None
    monkeypatch.setitem(
        __import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None
    )
    with pytest.raises(TracingError, match="not installed") as told:
        open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    assert "pip install '.[otel]'" in told.value.remedy


@pytest.fixture
def collector() -> Iterator[tuple[str, list[SentSpan]]]:
    """The address of a collector, and what it was sent."""
    sent: list[SentSpan] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            import gzip

            body = self.rfile.read(int(self.headers["Content-Length"]))
            body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    sent.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", sent
        listening.shutdown()


def test_a_service_sends_its_spans(
    make_server: Callable[..., Any], collector: tuple[str, list[SentSpan]]
) -> None:
    address, sent = collector
    server = make_server(OTEL_EXPORTER_OTLP_ENDPOINT=address, OTEL_BSP_SCHEDULE_DELAY="100")
    job = server.submit()
    assert server.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
    server.until(lambda: any(span.name == "job quantize" for span in sent), "the job's span")
    (whole,) = (span for span in sent if span.name == "job quantize")
    (post,) = (span for span in sent if span.name == "POST /quantize")
    assert [(link.trace_id, link.span_id) for link in whole.links] == [(post.trace_id, post.span_id)]
    stages = {span.name for span in sent if span.parent_span_id == whole.span_id}
    assert {"stage ingest", "stage sensitivity", "stage export", "stage report"} <= stages
    server.until(lambda: any(span.name == "GET /jobs/{job_id}" for span in sent), "the span of a question")
    assert "trace" not in server.job(job)
    server.stop()
