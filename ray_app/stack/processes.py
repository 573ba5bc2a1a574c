"""Processes as the stack needs to know them: alive or not, whose, and how to end them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import psutil

_POLL_SECONDS: Final = 0.05


def is_alive(process: psutil.Process) -> bool:
    """False for a zombie too: it waits for its parent and does nothing any more.

    A killed process shows as a zombie while its other threads still end, about 0.1 s for a large
    one; until the last has ended it holds its files, and with them its locks, so it counts as alive.
    """
    try:
        if not process.is_running():
            return False
        return bool(process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    except psutil.NoSuchProcess:
        return False


def living(pid: int) -> list[psutil.Process]:
    """The process of that id, when there is one."""
    try:
        return [psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return []


def processes_where(
    test: Callable[[psutil.Process], bool], among: Iterable[psutil.Process] | None = None
) -> Iterator[psutil.Process]:
    """Living processes that pass ``test``; those we may not look at, or that end meanwhile, do not.

    Looks at all processes of the machine unless ``among`` is given.
    """
    for process in psutil.process_iter() if among is None else among:
        try:
            if test(process) and is_alive(process):
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError, PermissionError):
            continue


def descendants(processes: Iterable[psutil.Process]) -> set[psutil.Process]:
    """The processes and all that they started and that still hang off them, this process excepted."""
    found: set[psutil.Process] = set()
    for process in processes:
        found.add(process)
        try:
            found.update(process.children(recursive=True))
        except psutil.NoSuchProcess:
            continue
    return {process for process in found if process.pid != os.getpid()}


def wait_gone(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until they have ended; returns those that have not. Zombies count as ended."""
    deadline = time.monotonic() + seconds
    left = [process for process in processes if is_alive(process)]
    while left and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        left = [process for process in left if is_alive(process)]
    return left


def terminate(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """SIGTERM, then ``wait_gone``."""
    return _signal(processes, signal.SIGTERM, seconds)


def kill(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """SIGKILL, then ``wait_gone``."""
    return _signal(processes, signal.SIGKILL, seconds)


def _signal(
    processes: Iterable[psutil.Process], number: signal.Signals, seconds: float
) -> list[psutil.Process]:
    targets = list(processes)
    for process in targets:
        try:
            process.send_signal(number)  # psutil refuses when the id has gone to another process
        except psutil.NoSuchProcess:
            continue
    return wait_gone(targets, seconds)


def run_child(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a program on this terminal to its end; its exit status.

    When this process is interrupted or told to end, so is the child, and its clean-up is waited for:
    ``subprocess.run`` would kill it and leave behind what it started.
    """
    with subprocess.Popen(command, env=environment) as child:
        try:
            return child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
