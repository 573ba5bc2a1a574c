"""``rowbeam doctor``: what works, what does not, and what to do about it. Starts nothing heavy."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import partial
from typing import Final

import httpx
import psutil
from sqlalchemy.exc import SQLAlchemyError

from ray_app.errors import RowbeamError
from ray_app.reports import Check
from ray_app.settings import Settings
from ray_app.stack.checks_data import check_database, check_source, check_vectors
from ray_app.stack.checks_host import check_home, check_processor, check_python
from ray_app.stack.checks_services import check_encoder, check_gateway, check_model, check_ray
from ray_app.stack.postgres_tools import ToolFailed

#: A check answers what it found, and raises what is wrong.
_CHECKS: Final[tuple[tuple[str, Callable[[Settings], str]], ...]] = (
    ("Python", check_python),
    ("Home", check_home),
    ("Database", check_database),
    ("Source tables", check_source),
    ("Vectors", check_vectors),
    ("Model", check_model),
    ("Encoder", check_encoder),
    ("Gateway", check_gateway),
    ("Ray", check_ray),
    ("Processor", check_processor),
)
#: What the parts under test fail with; their texts may quote a URL or a query, so only the kind is told.
_FOREIGN: Final = (
    SQLAlchemyError,
    httpx.HTTPError,
    httpx.InvalidURL,
    psutil.Error,
    subprocess.SubprocessError,
    ImportError,
    ToolFailed,
    ValueError,
)


def run_checks(settings: Settings) -> list[Check]:
    """Every check, in a fixed order; a failing one does not stop the others."""
    return [run_check(name, partial(check, settings)) for name, check in _CHECKS]


def run_check(name: str, check: Callable[[], str]) -> Check:
    """One check: ``check`` answers what it found, and raises what is wrong."""
    try:
        return Check(name, ok=True, detail=check())
    except RowbeamError as error:
        return Check(name, ok=False, detail=error.message, hint=error.hint)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        detail = f"{error.strerror or type(error).__name__}{where}."
        return Check(name, ok=False, detail=detail, hint="Check that this user may read and write there.")
    except _FOREIGN as error:
        detail = f"The check ended with {type(error).__name__}."
        return Check(name, ok=False, detail=detail, hint="Check the setting and the installed version.")
