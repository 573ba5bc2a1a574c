"""Lines of the log, for people or for machines, with the ids of what they were logged for.

The ids travel by context variables: the request's, the job's, and the tenant's incarnation, never its name.
A machine's line is one JSON object with the keys of Ray's own JSON logs, so that both read alike.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final
from uuid import UUID

from ray_app.errors import RowbeamError
from ray_app.settings import Settings
from ray_app.tracing.spans import current_ids

request_id: ContextVar[str] = ContextVar("request_id", default="")
job_id: ContextVar[str] = ContextVar("job_id", default="")
tenant: ContextVar[UUID | None] = ContextVar("tenant", default=None)

#: The loggers of this package and of those around it. What libraries log is their own business: an HTTP
#: client's lines quote addresses.
OURS: Final = ("ray_app", "jobs", "deployments")
#: As Ray calls them; ``job`` because ``job_id`` is what Ray calls its own.
IDS: Final = ("request_id", "job", "tenant", "trace_id", "span_id")


@contextmanager
def logging_for(*, job: str = "", incarnation: UUID | None = None) -> Iterator[None]:
    """Lines that are logged inside belong to this job and tenant."""
    tokens = job_id.set(job), tenant.set(incarnation)
    try:
        yield
    finally:
        job_id.reset(tokens[0])
        tenant.reset(tokens[1])


class ContextFilter(logging.Filter):
    """Gives every record the ids it was logged for, "" where there is none."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "request_id"):
            incarnation = tenant.get()
            record.request_id, record.job = request_id.get(), job_id.get()
            record.tenant = "" if incarnation is None else str(incarnation)
            record.trace_id, record.span_id = current_ids()
        return True


class TextFormatter(logging.Formatter):
    """``time level logger [id=… id=…] message``, and a traceback without what the exceptions say."""

    def format(self, record: logging.LogRecord) -> str:
        said = " ".join(f"{name}={value}" for name, value in ids_of(record).items())
        start = f"{self.formatTime(record)} {record.levelname} {record.name} [{said or '-'}]"
        error = record.exc_info[1] if record.exc_info else None
        return f"{start} {record.getMessage()}" + (f"\n{describe(error)}" if error else "")


class JsonFormatter(logging.Formatter):
    """One object on one line; ids that there are none of are left out."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.fields(record))

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        return {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
            "filename": record.filename if hasattr(record, "filename") else "",
            "lineno": record.lineno,
            "process": record.process,
            **extra_fields(record),
        }


def ids_of(record: logging.LogRecord) -> dict[str, str]:
    return {name: value for name in IDS if (value := getattr(record, name, ""))}


def extra_fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a line of ours says besides the keys that every line has."""
    fields: dict[str, Any] = {
        "logger": record.name,
        "timestamp_ns": int(record.created * 1e9),
        **ids_of(record),
    }
    if record.exc_info and record.exc_info[1]:
        fields["exception"] = describe(record.exc_info[1])
    return fields


def describe(error: BaseException) -> str:
    """A traceback with the messages of our own errors alone: others may quote a row or an address."""
    lines: list[str] = []
    for link in reversed(list(_chain(error))):
        lines += traceback.format_list(traceback.extract_tb(link.__traceback__))
        said = f": {link.message}" if isinstance(link, RowbeamError) else ""
        lines.append(f"{type(link).__module__}.{type(link).__qualname__}{said}\n")
    return "".join(lines).rstrip()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from or while handling, and so on."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def configure_logs(
    settings: Settings,
    *,
    level: int = logging.INFO,
    handler: logging.Handler | None = None,
    loggers: Sequence[str] = OURS,
) -> None:
    """Let ``loggers`` write to ``handler``, or in the settings' format to standard error. Idempotent.

    ``level`` is that of our own lines; "" among ``loggers`` is everybody's, from warnings up.
    """
    if handler is None:
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter() if wants_json(settings) else TextFormatter())
    elif handler.formatter is None:
        handler.setFormatter(TextFormatter())
    handler.addFilter(ContextFilter())
    for name in loggers:
        logger = logging.getLogger(name)
        if not any(isinstance(each, ContextFilter) for known in logger.handlers for each in known.filters):
            logger.addHandler(handler)
    for name in OURS:
        logging.getLogger(name).setLevel(level)


def wants_json(settings: Settings) -> bool:
    """Whether lines on standard error are for a machine."""
    if settings.log_format is None:
        return not sys.stderr.isatty()
    return settings.log_format == "json"
