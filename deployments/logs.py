"""A replica's own log lines, in Serve's log of the replica."""

from __future__ import annotations

import logging
from typing import Final

from ray import serve
from ray._common.formatters import JSONFormatter
from ray.serve.exceptions import RayServeException

from ray_app.logs import TextFormatter, extra_fields

#: As Serve's documentation names it.
_SERVE: Final = logging.getLogger("ray.serve")


class ServeLogHandler(logging.Handler):
    """Hands lines to Serve's logger, as fields where that writes JSON.

    Standard error gets there too, but Serve looks through the whole stack at every line that is written
    to it, to name who wrote it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(TextFormatter())
        self._origin = _origin()

    def emit(self, record: logging.LogRecord) -> None:
        json = _writes_json()
        message = record.getMessage() if json else self.format(record)
        line = _SERVE.makeRecord(
            _SERVE.name, record.levelno, record.pathname, record.lineno, message, (), None
        )
        if json:
            vars(line).update(extra_fields(record), **self._origin)
            # Serve would put the id of its own call in place of the request's.
            vars(line)["skip_context_filter"] = True
        _SERVE.handle(line)


def _writes_json() -> bool:
    """Whether ``logging_config.encoding`` is JSON here. Serve has no call that tells."""
    targets = (getattr(handler, "target", handler) for handler in _SERVE.handlers)
    return any(isinstance(target.formatter, JSONFormatter) for target in targets)


def _origin() -> dict[str, str]:
    """What Serve says of a replica in its own lines; nothing in a proxy."""
    try:
        context = serve.get_replica_context()
    except RayServeException:
        return {}
    return {"deployment": context.deployment, "replica": context.replica_id.unique_id}
