"""How many cores there are to work with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: Cgroup files with this container's share of CPU time: version 2, then version 1.
_QUOTA_V2: Final = Path("/sys/fs/cgroup/cpu.max")
_QUOTA_V1: Final = (
    Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
    Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


def usable_cores() -> int:
    """Cores this process may keep busy: its affinity, capped by its container's quota. At least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def _quota() -> float | None:
    try:
        limit, period = (
            _QUOTA_V2.read_text(encoding="ascii").split()
            if _QUOTA_V2.exists()
            else [path.read_text(encoding="ascii") for path in _QUOTA_V1]
        )
    except OSError:
        return None
    try:
        return int(limit) / int(period) if int(limit) > 0 else None
    except ValueError:  # "max": no limit
        return None
