"""Spans: what they say, what they never say, and that there is nothing of them without a collector."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from starlette.types import Receive, Scope, Send

from ray_app.api.tracing import TraceMiddleware
from ray_app.encoders.model_files import describe_space
from ray_app.serving.local_model import LocalModel, local_model
from ray_app.serving.port import EmbedCall
from ray_app.serving.traced import TracedLocalModel, TracedTarget
from ray_app.settings import Settings
from ray_app.tracing import exporting, spans
from ray_app.tracing.database import summary

SECRET = "the quarterly ferry seal"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SETTINGS = Settings(home=Path("/nowhere"), local_model="stub", otlp_endpoint="http://127.0.0.1:9/")


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Tracing into this, in place of a collector."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(exporting, "open_tracer", lambda *_: (provider.get_tracer("test"), provider))
    assert spans.start_tracing(SETTINGS, "test")
    yield kept
    spans.stop_tracing()
    assert not spans.enabled()


def names(kept: InMemorySpanExporter) -> list[str]:
    return [span.name for span in kept.get_finished_spans()]


def find(kept: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = [span for span in kept.get_finished_spans() if span.name == name]
    return span


def test_without_a_collector_there_is_nothing() -> None:
    assert not spans.start_tracing(SETTINGS.model_copy(update={"otlp_endpoint": None}), "test")
    assert spans.span("a", texts=1) is spans.span("b"), "one value for all, and nothing is made"
    with spans.span("a"):
        assert spans.traceparent() == ""
        assert spans.current_ids() == ("", "")
        spans.annotate("b", texts=1)
        spans.past_span("c", 1, 2)
    call = EmbedCall(describe_space(SETTINGS), ["x"], [1], UUID(int=1))
    assert spans.carried(call) is call
    spans.flush()
    spans.stop_tracing()


def test_without_a_collector_the_sdk_is_not_even_loaded() -> None:
    code = (
        "import sys, ray_app.api.app, ray_app.serving.pool, ray_app.store.routing, ray_app.logs\n"
        "print([name for name in sys.modules if name[:17] in ('opentelemetry.sdk', 'opentelemetry.exp')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("root", "traces", "expected"),
    [
        ("http://c:4318", None, "http://c:4318/v1/traces"),
        ("http://c:4318/", None, "http://c:4318/v1/traces"),
        ("http://c:4318", "http://d/x", "http://d/x"),
        (None, "http://d/x", "http://d/x"),
    ],
)
def test_where_traces_go(root: str | None, traces: str | None, expected: str) -> None:
    settings = SETTINGS.model_copy(update={"otlp_endpoint": root, "otlp_traces_endpoint": traces})
    assert settings.traces
    assert exporting._endpoint(settings) == expected


def test_spans_nest_and_go_on_in_another_process(ended: InMemorySpanExporter) -> None:
    with spans.span("outer", parent=PARENT, **{"http.route": "/x"}), spans.span("inner", texts=3):
        carried = spans.traceparent()
    with spans.span("there", parent=carried):
        pass
    outer, inner, there = (find(ended, name) for name in ("outer", "inner", "there"))
    assert f"{outer.context.trace_id:032x}" == PARENT[3:35]
    assert f"{outer.parent.span_id:016x}" == PARENT[36:52]
    assert inner.parent.span_id == outer.context.span_id
    assert there.parent.span_id == inner.context.span_id
    assert dict(inner.attributes) == {"rowbeam.texts": 3}
    assert dict(outer.attributes) == {"http.route": "/x"}


@pytest.mark.parametrize("parent", ["", "rubbish", "00-0-0-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_parent_that_cannot_be_read_begins_a_trace(ended: InMemorySpanExporter, parent: str) -> None:
    with spans.span("outer"), spans.span("inner", parent=parent):
        pass
    assert find(ended, "inner").parent is None


def test_what_failed_is_marked_and_not_quoted(ended: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="ferry"), spans.span("fails"):
        raise ValueError(SECRET)
    failed = find(ended, "fails")
    assert failed.status.status_code is StatusCode.ERROR
    assert dict(failed.attributes) == {"error.type": "ValueError"}
    assert SECRET not in failed.to_json()


def test_a_request_that_is_not_sampled_is_not_sent_and_neither_is_what_it_causes(
    ended: InMemorySpanExporter,
) -> None:
    with spans.span("outer", parent=PARENT[:-1] + "0"):
        assert spans.traceparent().endswith("-00")
        with spans.span("inner"):
            pass
    assert names(ended) == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT a FROM rowbeam.jobs WHERE b", ("SELECT", "rowbeam.jobs")),
        ('select "a" from "public"."pull_requests"', ("SELECT", "public.pull_requests")),
        ("INSERT INTO rowbeam.usage (a) VALUES (%(a)s)", ("INSERT", "rowbeam.usage")),
        ("UPDATE rowbeam.ranges SET a", ("UPDATE", "rowbeam.ranges")),
        ("  WITH x AS (SELECT 1) DELETE FROM t", ("WITH", "t")),
        ("COMMIT", ("COMMIT", "")),
        ("", ("", "")),
    ],
)
def test_a_statement_goes_by_its_operation_and_table(statement: str, expected: tuple[str, str]) -> None:
    assert summary(statement) == expected


async def _routed(scope: Scope, receive: Receive, send: Send) -> None:
    """An application with one route, which tells what traceparent it was handed."""
    scope["route"] = type("Route", (), {"path": "/v1/records/{id}"})
    given = dict(scope["headers"]).get(b"traceparent", b"")
    await send({"type": "http.response.start", "status": 418, "headers": [(b"seen", given)]})
    await send({"type": "http.response.body", "body": b""})


def test_a_request_is_called_by_its_route_and_handed_on(ended: InMemorySpanExporter) -> None:
    async def ask(path: str, headers: dict[str, str]) -> httpx.Response:
        transport = httpx.ASGITransport(TraceMiddleware(_routed, part="router"))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get(path, headers=headers)

    answer = asyncio.run(ask(f"/v1/records/{SECRET}?q={SECRET}", {"traceparent": PARENT}))
    span = find(ended, "router GET /v1/records/{id}")
    assert answer.headers["seen"] == f"{PARENT[:36]}{span.context.span_id:016x}-01"
    assert span.attributes["http.response.status_code"] == 418
    assert SECRET.split(maxsplit=1)[0] not in span.to_json()

    watched = asyncio.run(ask("/readyz", {"traceparent": PARENT}))
    assert watched.headers["seen"] == PARENT, "as it came"
    assert len(names(ended)) == 1


def test_a_call_of_the_model_says_what_it_waited_and_what_was_worked(ended: InMemorySpanExporter) -> None:
    async def embed() -> None:
        model = local_model(SETTINGS, kind=TracedLocalModel)
        target = TracedTarget(model)
        texts = [f"{SECRET} {place}" for place in range(3)]
        call = EmbedCall(model.space, texts, [4] * 3, UUID(int=1), traceparent=PARENT)
        one, two = await asyncio.gather(target.embed(call), target.embed(call))
        assert (one.vectors == two.vectors).all()
        assert not model._waiting, "nothing is kept of what is over"
        await asyncio.to_thread(model.close)

    asyncio.run(embed())
    found = names(ended)
    assert (found.count("local model"), found.count("queue wait"), found.count("encode")) == (2, 2, 2)
    for span in ended.get_finished_spans():
        assert SECRET not in span.to_json()
        assert span.start_time <= span.end_time
        if span.name in ("queue wait", "encode"):
            assert f"{span.context.trace_id:032x}" == PARENT[3:35]


def test_the_model_without_spans_is_the_plain_one() -> None:
    model = local_model(SETTINGS)
    assert type(model) is LocalModel
    model.close()


def test_a_collector_that_does_not_answer_keeps_nobody_waiting(
    ended: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush is given up; while it hangs, the next does not even begin."""
    asked, release = [], threading.Event()
    tracing = spans._tracing
    assert tracing is not None
    monkeypatch.setattr(tracing.provider, "force_flush", lambda: asked.append(1) or release.wait(20))
    spans.flush(wait=0.01)
    spans.flush(wait=0.01)
    assert len(asked) == 1
    release.set()
    assert tracing.flushing is not None
    tracing.flushing.join(20)
    spans.flush(wait=5)
    assert len(asked) == 2
