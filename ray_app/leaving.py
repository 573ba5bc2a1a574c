"""The end of a process that may have used Ray."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End this process with exit status ``code``; at once where Ray was used, without handlers of exit.

    A process that has left a cluster can still crash in one of Ray's own threads while the interpreter
    takes itself apart (SIGSEGV in _raylet.so, 2.60), and its exit status would say that what it did failed.
    """
    if "ray" not in sys.modules:
        sys.exit(code)
    logging.shutdown()
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
