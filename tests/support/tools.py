"""Programs that tests drive and pip does not bring: ``make tools`` gets them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest


def tool(program: str) -> str:
    """Where it is: on the PATH, or in the virtual environment's ``tools``. Fails the test without it."""
    found = shutil.which(program) or shutil.which(program, path=Path(sys.prefix) / "tools" / "bin")
    if found is None:
        pytest.fail(f"{program} is not there. Run make tools, or install the Debian package that has it.")
    return found
