"""Checks of the machine: interpreter, disk, processor."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import psutil

from ray_app.cores import usable_cores
from ray_app.errors import ConfigError
from ray_app.settings import Settings

#: What ``pyproject.toml`` asks for.
_OLDEST_PYTHON: Final = (3, 11)
_FIRST_UNTRIED_PYTHON: Final = (3, 13)
#: Bytes: a new Postgres takes 60 MB, its log up to 1 GB, and each tenant's vectors at least 32 MB.
_FREE_BYTES: Final = 2 * 1024**3
_SEEN_BY_NVIDIA_SECONDS: Final = 10.0


def check_python(_: Settings) -> str:
    """Raises ConfigError."""
    if not _OLDEST_PYTHON <= sys.version_info[:2] < _FIRST_UNTRIED_PYTHON:
        raise ConfigError(
            f"Python {platform.python_version()} is not supported.", hint="Use Python 3.11 or 3.12."
        )
    return f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"


def check_home(settings: Settings) -> str:
    """Writable, with room; a home that does not exist yet is not made. Raises ConfigError."""
    home = settings.home.absolute()
    existing = nearest_existing(home)
    another = "Allow this user to write there, or set ROWBEAM_HOME to another folder."
    if not existing.is_dir():
        raise ConfigError(f"{existing} is a file, so {home} cannot be a folder.", hint=another)
    if not can_write(existing):
        raise ConfigError(f"{existing} cannot be written.", hint=another)
    free = shutil.disk_usage(existing).free
    if free < _FREE_BYTES:
        raise ConfigError(
            f"{home} has {free / 1e9:.1f} GB free; at least {_FREE_BYTES / 1e9:.1f} GB are needed.",
            hint="Free some space, or set ROWBEAM_HOME to a folder on another disk.",
        )
    state = "" if existing == home else ", made at first use"
    return f"{home}{state}, {free / 1e9:.0f} GB free"


def check_processor(_: Settings) -> str:
    memory = psutil.virtual_memory()
    parts = [
        f"{usable_cores()} usable cores",
        f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB memory free",
    ]
    return ", ".join([*parts, _gpus()])


def nearest_existing(path: Path) -> Path:
    """``path`` or the nearest thing above it that exists."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def can_write(folder: Path) -> bool:
    """Whether a file can be made there: tried, since permission bits are not the whole truth."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _gpus() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "no NVIDIA GPU"
    try:
        done = subprocess.run(
            [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_SEEN_BY_NVIDIA_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "an NVIDIA driver that does not answer (nvidia-smi fails)"
    return "GPUs: " + "; ".join(line.strip() for line in done.stdout.splitlines() if line.strip())
