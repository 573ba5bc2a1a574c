"""Who drives a job, and whether it lives."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Float, Label, Row, cast, func

from ray_app.db.schema import jobs
from ray_app.reports import JobState

#: A driver that has been silent for longer is taken for dead.
LEASE: Final = timedelta(seconds=30)


def host_id() -> str:
    """This machine until its next boot; process ids mean something only together with it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}/{boot.read_text().strip() if boot.exists() else ''}"


def heartbeat_age() -> Label[float]:
    """The column ``heartbeat_age``: seconds since a job's last heartbeat, by the clock that timed it."""
    age = func.extract("epoch", func.clock_timestamp() - jobs.c.heartbeat_at)
    return cast(age, Float).label("heartbeat_age")


def owner_alive(row: Row[Any]) -> bool:
    """Whether an active job's driver lives: a fresh heartbeat and, on this machine, a process.

    ``row`` has the job's columns and ``heartbeat_age``. A heartbeat from the future was timed before the
    clock was set back; a driver that lives has another within a second.
    """
    if not JobState(row.state).active or row.heartbeat_age is None:
        return False
    if abs(row.heartbeat_age) > LEASE.total_seconds():
        return False
    return row.owner_host != host_id() or process_exists(row.owner_pid)


def process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
