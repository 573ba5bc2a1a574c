"""A replica's own log lines, in Serve's log of the replica."""

from __future__ import annotations

import logging

#: As Serve's documentation names it.
_SERVE = logging.getLogger("ray.serve")


class ServeLogHandler(logging.Handler):
    """Hands lines to Serve's logger.

    Standard error gets there too, but Serve looks through the whole stack at every line that is written
    to it, to name who wrote it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        # Only into the replica's file: Ray would carry standard error there a second time.
        _SERVE.log(record.levelno, "%s", self.format(record), extra={"log_to_stderr": False})
