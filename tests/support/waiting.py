"""How tests wait: for as long as a slow machine needs, and no longer than they must."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: Seconds for whatever a loaded machine of two cores is slow at. Nothing is measured by it: it only has to
#: be longer than anything that works takes, and shorter than pytest's limit for a test.
PATIENCE: Final = 180.0


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return when ``condition`` holds. Fails the test after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited for {seconds:g} s"
        time.sleep(0.1)
