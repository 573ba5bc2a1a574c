"""How many replicas of the local model: by the tokens that wait, not by requests, which differ in size.

Serve ships this module to its controller by value, so it imports nothing of ours.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, Final

#: Seconds that new tokens may wait before another replica is worth its start.
TARGET_WAIT: Final = 2.0
#: Tokens a second of one replica that has not measured itself; all-MiniLM-L6-v2 on two cores does about this.
ASSUMED_SPEED: Final = 5000.0


def replicas_for(queued_tokens: float, tokens_per_second: float, wait: float = TARGET_WAIT) -> int:
    """Replicas of a given speed that work ``queued_tokens`` off in ``wait`` seconds; at least 1."""
    return max(1, math.ceil(queued_tokens / (max(tokens_per_second, 1.0) * wait)))


def mean_speed(speeds: Collection[float]) -> float:
    """Tokens a second of one replica: the mean of those that have worked, else ``ASSUMED_SPEED``."""
    measured = [speed for speed in speeds if speed > 0]
    return sum(measured) / len(measured) if measured else ASSUMED_SPEED


def by_queued_tokens(context: Any) -> tuple[int, dict[str, Any]]:
    """An autoscaling policy of Ray Serve, over what replicas record; Serve applies bounds and delays."""
    metrics = context.aggregated_metrics or {}
    queued = sum(metrics.get("queued_tokens", {}).values())
    speed = mean_speed(metrics.get("tokens_per_second", {}).values())
    return replicas_for(queued, speed), {}
