"""Which processes count as alive, and what hangs off them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil

from ray_app.stack.processes import (
    descendants,
    is_alive,
    kill,
    living,
    processes_where,
    run_child,
    wait_gone,
)

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(SLEEP)
    process = psutil.Process(child.pid)
    assert is_alive(process)
    assert kill([process], 30) == []
    # Nobody has asked for its exit status, so it is still in the process table.
    assert process.is_running()
    assert not is_alive(process)
    assert list(processes_where(lambda it: it.pid == child.pid)) == []
    child.wait()
    assert not is_alive(process)


def test_what_does_not_end_is_told() -> None:
    child = subprocess.Popen(SLEEP)
    try:
        assert wait_gone(living(child.pid), 0) == living(child.pid)
    finally:
        child.kill()
        child.wait()
    assert living(child.pid) == []


def test_descendants_reach_down_but_not_to_this_process() -> None:
    code = (
        f"import subprocess, sys; subprocess.Popen({SLEEP!r}); print('ready', flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    family = set()
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        family = descendants([psutil.Process(parent.pid)])
        assert len(family) == 2
        assert family <= descendants([psutil.Process()])
        assert os.getpid() not in {process.pid for process in descendants([psutil.Process()])}
    finally:
        kill(family, 30)
        parent.communicate()


def test_a_child_is_told_to_end_and_its_clean_up_is_waited_for() -> None:
    tidy = (
        "import signal, sys, time\n"
        "def end(*_):\n    time.sleep(0.5)\n    print('tidy', flush=True)\n    sys.exit(7)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = (
        "import sys\n"
        "from ray_app.stack.processes import run_child\n"
        f"run_child([sys.executable, '-c', {tidy!r}])\n"
    )
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        assert running.stdout.read() == "tidy\n"
    assert running.returncode != 0


def test_a_childs_exit_status_is_answered() -> None:
    assert run_child([sys.executable, "-c", "raise SystemExit(3)"]) == 3
