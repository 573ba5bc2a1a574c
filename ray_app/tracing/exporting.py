"""Where spans go: to a collector, over OTLP/HTTP, by a thread in the background."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Tracer

from ray_app.settings import Settings

_NAME: Final = "rowbeam"
#: The path of traces below a collector's root, by the OTLP specification.
_PATH: Final = "/v1/traces"


def open_tracer(settings: Settings, part: str) -> tuple[Tracer, TracerProvider]:
    """A tracer of this process, and what sends its spans.

    The SDK reads OpenTelemetry's other variables by itself: headers, sampler, limits, resource. It is not
    made the process's global provider, so that libraries which would trace texts or addresses do not.
    """
    given = Resource.create({"rowbeam.part": part, "service.version": version(_NAME)})
    if str(given.attributes[SERVICE_NAME]).startswith("unknown_service"):  # the SDK's word for none
        given = given.merge(Resource({SERVICE_NAME: _NAME}))
    provider = TracerProvider(resource=given)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=_endpoint(settings))))
    return provider.get_tracer(_NAME, version(_NAME)), provider


def _endpoint(settings: Settings) -> str:
    if settings.otlp_traces_endpoint is not None:
        return settings.otlp_traces_endpoint
    return str(settings.otlp_endpoint).rstrip("/") + _PATH
