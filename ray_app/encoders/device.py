"""What a local model may run on, told without importing torch."""

from __future__ import annotations

import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def likely_device() -> str:
    """``cuda``, ``mps`` or ``cpu``, from the installed torch build and the machine's device files.

    A guess for plans, which must be quick; the encoder asks torch itself when it loads. Looked up once in
    a process: an installed version is read from files, and a server would do it for each request.
    """
    try:
        build = version("torch")
    except PackageNotFoundError:
        return "cpu"
    if sys.platform == "darwin":
        return "mps" if platform.machine() == "arm64" else "cpu"
    has_cuda = not build.endswith("+cpu") and any(Path("/dev").glob("nvidia[0-9]*"))
    return "cuda" if has_cuda else "cpu"
