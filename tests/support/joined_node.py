"""A second node of a running cluster: a raylet of its own on this machine, which dies as a machine does.

``ray start`` would replace 127.0.0.1, where a stack's own head listens, by the machine's outer address, so
the node is made as ``ray.cluster_utils`` does it: ``python -m tests.support.joined_node GCS FOLDER CPUS``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from ray_app.settings import Settings, child_environment
from ray_app.stack.processes import kill, processes_where
from ray_app.stack.ray_token import ray_variables
from tests.support.deploy_files import ROOT

#: The node's address: of its own, so that every driver on this machine stays with the head's raylet.
ADDRESS: Final = "127.0.0.3"
#: Bytes of its object store.
_OBJECT_STORE: Final = 128 * 1024**2
_READY: Final = "joined"


class JoinedNode:
    """Processes of one node, all in one session."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def workers(self, title: str) -> list[psutil.Process]:
        """The node's processes whose title contains ``title``."""
        return [process for process in self._members() if title in " ".join(process.cmdline())]

    def kill(self) -> None:
        """SIGKILL to every process, the raylet first, as when a machine loses its power."""
        for process in self.workers("raylet/raylet"):
            process.kill()
        while found := self._members():
            assert kill(set(found), 20) == []
        self._process.wait()

    def _members(self) -> list[psutil.Process]:
        return list(processes_where(lambda it: os.getsid(it.pid) == self._process.pid))


@contextmanager
def joined_node(settings: Settings, gcs: str, cpus: int) -> Iterator[JoinedNode]:
    """A node that has joined the cluster at ``gcs`` and is gone again when this ends."""
    folder = Path(tempfile.mkdtemp(prefix="rb-j-"))
    environment: Mapping[str, str] = child_environment(settings) | ray_variables(settings)
    with (folder / "node.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.joined_node", gcs, str(folder), str(cpus)],
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    node = JoinedNode(process)
    try:
        assert process.stdout is not None
        said = next((line for line in process.stdout if line.strip() == _READY), None)
        assert said, (folder / "node.log").read_text(errors="replace")[-2000:]
        yield node
    finally:
        node.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _run(gcs: str, folder: str, cpus: int) -> None:
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    params = RayParams(
        gcs_address=gcs,
        node_ip_address=ADDRESS,
        num_cpus=cpus,
        num_gpus=0,
        object_store_memory=_OBJECT_STORE,
        temp_dir=folder,
        min_worker_port=0,
        max_worker_port=0,
        node_manager_port=0,
        include_log_monitor=False,
    )
    node = Node(params, head=False, shutdown_at_exit=False, spawn_reaper=False)
    sys.stdout.write(f"{_READY}\n")
    sys.stdout.flush()
    for process in node.all_processes["raylet"]:
        process.process.wait()


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
