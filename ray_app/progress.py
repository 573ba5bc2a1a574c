"""Rate and estimated completion of a running job. Pure; the progress actor is a shim over it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ray_app.metrics.declared import JOB_PART_AGE, JOB_RATE, JOB_RECORDS
from ray_app.writing import Receipt

#: Seconds that the rate looks back over: long enough to be steady, short enough to follow a change.
WINDOW: Final = 30.0
MAX_ERRORS: Final = 20


class ProgressTracker:
    """Adds up receipts of the parts of one job."""

    def __init__(self, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        """``total`` records are expected, ``done`` of them were processed before."""
        self._clock = clock
        self._total = total
        self._done = done
        self._marks: deque[tuple[float, int]] = deque([(clock(), done)])
        self._provider: str | None = None
        self._errors: deque[str] = deque(maxlen=MAX_ERRORS)

    def record(self, receipt: Receipt) -> None:
        """Count a part; one that was counted before adds nothing."""
        if not receipt.counted:
            return
        self._done += receipt.counts.read
        now = self._clock()
        self._marks.append((now, self._done))
        while len(self._marks) > 2 and now - self._marks[0][0] > WINDOW:
            self._marks.popleft()
        self._provider = receipt.provider or self._provider
        self._errors.extend(receipt.errors)

    def rate(self) -> float:
        """Records a second over the window."""
        (start, before), now = self._marks[0], self._clock()
        return (self._done - before) / (now - start) if now > start else 0.0

    def snapshot(self) -> dict[str, Any]:
        """JSON for the job's row: rate, estimated completion (ISO 8601, UTC), provider, latest errors.

        Sets the job's gauges too.
        """
        rate = self.rate()
        left = max(self._total - self._done, 0)
        JOB_RECORDS.replace({("done",): self._done, ("left",): left})
        JOB_RATE.set(rate)
        JOB_PART_AGE.set(self._clock() - self._marks[-1][0])
        end = datetime.now(UTC) + timedelta(seconds=left / rate) if rate > 0 else None
        return {
            "records_per_second": round(rate, 2),
            "estimated_completion": end.isoformat() if end else None,
            "provider": self._provider,
            "errors": list(self._errors),
        }
