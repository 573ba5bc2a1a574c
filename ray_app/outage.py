"""Ride out a dependency that is down: wait and try again within a budget, charging no row."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from ray_app.errors import DependencyError

T = TypeVar("T")
log = logging.getLogger(__name__)
FIRST_WAIT: Final = 0.2
LONGEST_WAIT: Final = 5.0


def ride_out(call: Callable[[], T], *, budget: float, what: str) -> T:
    """``call()``, repeated while it raises a retryable ``DependencyError``, for at most ``budget`` seconds.

    Waits double from ``FIRST_WAIT`` to ``LONGEST_WAIT`` with full jitter, so that many waiters do
    not come back as one. ``call`` must be idempotent. The last error is raised when the budget is spent.
    """
    deadline = time.monotonic() + budget
    wait = FIRST_WAIT
    while True:
        try:
            return call()
        except DependencyError as error:
            left = deadline - time.monotonic()
            if not error.retryable or left <= 0:
                raise
            log.warning("%s: %s Trying again for another %.0f s.", what, error.message, left)
            time.sleep(min(random.uniform(wait / 2, wait), left))  # noqa: S311 - jitter, not a secret
            wait = min(wait * 2, LONGEST_WAIT)
