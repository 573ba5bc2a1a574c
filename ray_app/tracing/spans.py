"""Spans where a collector is configured, and nothing at all where none is.

OpenTelemetry is imported when tracing starts and not before. Names and attributes are the code's own words,
ids and counts: never a text, a tenant's name, an address or what an exception says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar

from ray_app.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Value = str | int | float | bool

_OFF: Final[AbstractContextManager[None]] = nullcontext()
#: What W3C's Trace Context calls the header.
TRACEPARENT: Final = "traceparent"


class _Provider(Protocol):
    def force_flush(self) -> bool: ...

    def shutdown(self) -> None: ...


@dataclass
class _Tracing:
    tracer: Tracer
    provider: _Provider
    flushing: Thread | None = None


_lock: Final = Lock()
_tracing: _Tracing | None = None


class Carrier(Protocol):
    """A value that travels between processes and says which span it belongs to."""

    @property
    def traceparent(self) -> str: ...


C = TypeVar("C", bound=Carrier)


def start_tracing(settings: Settings, part: str) -> bool:
    """Trace this process from now on, if the settings name a collector; answers whether. Idempotent.

    ``part`` says what of Rowbeam this process is.
    """
    global _tracing  # noqa: PLW0603 - one for each process, as OpenTelemetry's own
    with _lock:
        if settings.traces and _tracing is None:
            from ray_app.tracing.exporting import open_tracer

            _tracing = _Tracing(*open_tracer(settings, part))
    return _tracing is not None


def stop_tracing() -> None:
    """Send what has not been sent, for some seconds at most, and trace no more. Idempotent."""
    global _tracing
    with _lock:
        ended, _tracing = _tracing, None
    if ended is not None:
        ended.provider.shutdown()


def flush(wait: float = 0.5) -> None:
    """Send what has ended, waiting ``wait`` seconds at most: for processes that are ended without a word.

    While an earlier one still waits for a collector that does not answer, this does nothing.
    """
    tracing = _tracing
    if tracing is None or (tracing.flushing is not None and tracing.flushing.is_alive()):
        return
    tracing.flushing = Thread(target=tracing.provider.force_flush, name="traces", daemon=True)
    tracing.flushing.start()
    tracing.flushing.join(wait)


def enabled() -> bool:
    return _tracing is not None


def span(
    name: str, *, kind: Kind = "internal", parent: str | None = None, **attributes: Value
) -> AbstractContextManager[None]:
    """A span around what happens inside, below the current one or the one that ``parent`` names.

    An exception that leaves it marks it as failed, by its type alone.
    """
    return _OFF if _tracing is None else _spanned(_tracing.tracer, name, kind, parent, attributes)


@contextmanager
def _spanned(
    tracer: Tracer, name: str, kind: Kind, parent: str | None, attributes: dict[str, Value]
) -> Iterator[None]:
    from opentelemetry.trace import SpanKind, Status, StatusCode

    context = None if parent is None else _context_of(parent)
    with tracer.start_as_current_span(
        name,
        context=context,
        kind=SpanKind[kind.upper()],
        attributes=_named(attributes),
        # Either would send what the exception says.
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield
        except BaseException as error:
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(Status(StatusCode.ERROR))
            raise


def past_span(name: str, began: int, ended: int, **attributes: Value) -> None:
    """A span below the current one of something that is over; times in nanoseconds since 1970."""
    if _tracing is not None:
        _tracing.tracer.start_span(name, start_time=began, attributes=_named(attributes)).end(ended)


def annotate(name: str | None = None, **attributes: Value) -> None:
    """Say more of the current span, or call it something else."""
    if _tracing is not None:
        from opentelemetry.trace import get_current_span

        current = get_current_span()
        current.set_attributes(_named(attributes))
        if name is not None:
            current.update_name(name)


def traceparent() -> str:
    """The current span, for another process; "" without one."""
    if _tracing is None:
        return ""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return headers.get(TRACEPARENT, "")


def carried(value: C) -> C:
    """``value``, a dataclass, with the current span in it when there is one."""
    return value if _tracing is None else _carry(value)


def _carry(value: Any) -> Any:
    return replace(value, traceparent=traceparent())


def current_ids() -> tuple[str, str]:
    """Trace and span, in hexadecimal as in ``traceparent``; "" for each without one."""
    if _tracing is None:
        return "", ""
    from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

    context = get_current_span().get_span_context()
    if not context.is_valid:
        return "", ""
    return format_trace_id(context.trace_id), format_span_id(context.span_id)


def _named(attributes: dict[str, Value]) -> dict[str, Value]:
    """Ours under a name of our own; those with a dot are OpenTelemetry's."""
    return {key if "." in key else f"rowbeam.{key}": value for key, value in attributes.items()}


def _context_of(parent: str) -> Context:
    """Of a ``traceparent``; one that cannot be read begins a trace of its own."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({TRACEPARENT: parent}, context=Context())
