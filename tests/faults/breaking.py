"""How each kind of fault is made: real signals to real processes, a full disk, a clock that is set."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import psutil

from tests.faults.plan import Kind, Run
from tests.faults.world import World

#: Titles of the Ray workers that a job is made of.
_TITLES: Final = {
    Kind.ENCODER: "MapBatches(EncodeStage)",
    Kind.WRITER: "MapBatches(WriteStage)",
    Kind.PROGRESS: "JobProgressActor",
    Kind.OWNER: "VectorOwner",
    Kind.REPLICA: "ServeReplica:rowbeam:LocalModelCpu",
    Kind.ROUTER: "ServeReplica:rowbeam:Router",
}
#: In the titles of workers that do a job's work.
_STAGES: Final = (_TITLES[Kind.ENCODER], _TITLES[Kind.WRITER], "ReadPostgresRanges")
#: Written again and again into a disk that is to be full.
_BLOCK: Final = bytes(256 * 1024)


class Missed(Exception):
    """There was nothing to break: the work had not begun, or was over."""


def strike(world: World, run: Run, driver: Callable[[], psutil.Process]) -> None:
    """Make the fault, and end it where it is an outage. Raises Missed."""
    try:
        match run.kind:
            case Kind.DRIVER:
                driver().kill()
            case Kind.POSTGRES:
                world.site.postgres().kill()
            case Kind.STORE:
                _freeze(_victim(world, Kind.OWNER, run), run.outage)
            case Kind.DISK:
                _fill_disk(world, run)
            case Kind.GATEWAY:
                with world.gateway.outage():
                    time.sleep(run.outage)
            case Kind.NODE:
                _kill_node(world)
            case Kind.CLOCK:
                world.clock.step(timedelta(hours=run.step))
            case _:
                _victim(world, run.kind, run).kill()
    except psutil.NoSuchProcess:
        raise Missed(f"the {run.kind} had ended") from None


def _victim(world: World, kind: Kind, run: Run) -> psutil.Process:
    found = sorted(world.workers(_TITLES[kind]), key=lambda process: process.pid)
    if not found:
        raise Missed(f"no {kind} was running")
    return run.rng.choice(found)


def _kill_node(world: World) -> None:
    """SIGKILL to the second node's raylet and to all on it, if part of the job is there."""
    node = world.node
    if node is None or not any(node.workers(title) for title in _STAGES):
        raise Missed("nothing of the job was on the second node")
    node.kill()


def _freeze(process: psutil.Process, seconds: float) -> None:
    """Let a process answer nobody for a while; its connections stay open."""
    process.suspend()
    try:
        time.sleep(seconds)
    finally:
        process.resume()


def _fill_disk(world: World, run: Run) -> None:
    """Write until the store's file system is full, and give it back after the outage."""
    if world.disk is None:
        raise AssertionError("runs with a full disk are planned only where one can be filled")
    ballast = world.disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(_BLOCK)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        time.sleep(run.outage)
    finally:
        ballast.unlink(missing_ok=True)
