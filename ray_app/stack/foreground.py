"""The whole stack in the foreground: up, wait for a signal, drain, down. For containers and systemd."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from ray_app.errors import ConflictError, RayUnavailable
from ray_app.settings import Settings
from ray_app.stack.embedded import Stack, StackStatus

#: Seconds between looks whether the head is alive.
_WATCH_SECONDS: Final = 1.0


def serve(settings: Settings, on_ready: Callable[[StackStatus], None]) -> None:
    """Start everything, call ``on_ready``, and return when a signal has ended it in order.

    Raises:
        ConflictError: a stack of this home runs already, which this process would not own.
        ConfigError, DatabaseUnavailable, RayUnavailable: as ``Stack.up``; or the head has died.
    """
    stack = Stack(settings)
    status = stack.status()
    if status.other_ray is not None:
        raise ConflictError(
            f"RAY_ADDRESS names the cluster at {status.other_ray}.",
            hint="Run serve deploy deployments/serve.yaml there, or unset RAY_ADDRESS.",
        )
    if status.head is not None:
        raise ConflictError("Rowbeam runs here already.", hint="Run rowbeam down first.")
    with _stop_on_signal() as stop:
        try:
            on_ready(stack.up(server=True))
            while not stop.wait(_WATCH_SECONDS):
                if stack.status().head is None:
                    raise RayUnavailable("Ray has died.", hint="See run/ray.log in the home directory.")
        finally:
            stack.down()


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM or SIGINT sets; a second one ends what runs then at once."""
    stop = threading.Event()

    def handle(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            raise SystemExit(128 + number)
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
