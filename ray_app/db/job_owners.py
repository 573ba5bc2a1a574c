"""Who drives a job, and whether it lives."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Row

from ray_app.reports import JobState

#: A driver that has been silent for longer is taken for dead.
LEASE: Final = timedelta(seconds=30)


def host_id() -> str:
    """This machine until its next boot; process ids mean something only together with it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}/{boot.read_text().strip() if boot.exists() else ''}"


def owner_alive(row: Row[Any]) -> bool:
    """Whether an active job's driver lives: a fresh heartbeat and, on this machine, a process."""
    if not JobState(row.state).active or row.heartbeat_at is None:
        return False
    if datetime.now(UTC) - row.heartbeat_at > LEASE:
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
