"""A collector of traces, which takes OTLP over HTTP from OpenTelemetry's own exporter."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Span:
    """One span; ids in hexadecimal, times in nanoseconds."""

    name: str
    part: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    began: int
    ended: int
    failed: bool


class Collector:
    """Listens on 127.0.0.1 while the block lasts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        #: Everything that was received, to look for what must not be in it.
        self.raw = bytearray()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                collector.take(body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Not on standard error."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        found = []
        for resource in request.resource_spans:
            given = _attributes(resource.resource.attributes)
            assert given["service.name"] == "rowbeam"
            for scope in resource.scope_spans:
                found += [_span(span, given["rowbeam.part"]) for span in scope.spans]
        with self._lock:
            self.raw += body
            self._spans += found

    def trace(self, trace_id: str) -> list[Span]:
        with self._lock:
            return [span for span in self._spans if span.trace_id == trace_id]

    def spans(self) -> list[Span]:
        with self._lock:
            return list(self._spans)


def path_of(span: Span, trace: Sequence[Span]) -> list[str]:
    """The names from the outermost span of a trace down to this one."""
    by_id = {each.span_id: each for each in trace}
    names: list[str] = []
    here: Span | None = span
    while here is not None:
        names.append(here.name)
        here = by_id.get(here.parent_id)
    return names[::-1]


def _span(span: Any, part: str) -> Span:
    return Span(
        name=span.name,
        part=part,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_attributes(span.attributes),
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        failed=span.status.code == 2,  # STATUS_CODE_ERROR
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
