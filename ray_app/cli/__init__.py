"""The rowbeam command line: a thin layer over ``ray_app.app.Rowbeam``."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress


def main() -> None:
    """Run the command that ``sys.argv`` names and end the process with its exit code."""
    from ray_app.cli.app import run

    code = run(sys.argv[1:])
    if "ray" not in sys.modules:
        sys.exit(code)
    # A process that has left a cluster can still crash in one of Ray's own threads while the interpreter
    # takes itself apart (SIGSEGV in _raylet.so, 2.60), and its exit code would say that the command failed.
    logging.shutdown()
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
