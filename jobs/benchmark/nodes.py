"""A Ray cluster of several nodes on this machine, and jobs on it.

Run by ``jobs.benchmark.scale`` as a process of its own, because Ray reads its variables when it is
imported. Reads requests from standard input, one JSON object a line with ``nodes`` and ``tenant``;
makes the cluster as large as asked, backfills the tenant and answers a line with the job's id, its
state and its error. At the end of the input everything is stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Final

from ray.cluster_utils import Cluster

from ray_app.app import Rowbeam
from ray_app.settings import Settings
from ray_app.spaces import Preference
from ray_app.stack.ray_command import HOST

#: Bytes of a node's object store: more than a job's blocks ever take of it.
OBJECT_STORE_BYTES: Final = 100 * 1024**2


class Nodes:
    """Nodes that all listen on loopback alone, each with ``cpus`` logical CPUs."""

    def __init__(self, cpus: int) -> None:
        self._node = {"num_cpus": cpus, "node_ip_address": HOST, "object_store_memory": OBJECT_STORE_BYTES}
        self._cluster = Cluster(
            initialize_head=True, head_node_args={**self._node, "include_dashboard": False}
        )

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def resize(self, count: int) -> None:
        """Add or remove nodes; the head stays."""
        while len(self._cluster.worker_nodes) > count - 1:
            self._cluster.remove_node(next(iter(self._cluster.worker_nodes)))
        while len(self._cluster.worker_nodes) < count - 1:
            self._cluster.add_node(wait=False, **self._node)
        self._cluster.wait_for_nodes()

    def shutdown(self) -> None:
        self._cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.benchmark.nodes")
    parser.add_argument("--cpus", type=int, required=True)
    args = parser.parse_args()
    nodes = Nodes(args.cpus)
    try:
        settings = Settings.from_env().model_copy(update={"ray_address": nodes.address})
        with Rowbeam.open(settings) as rowbeam:
            for line in sys.stdin:
                print(json.dumps(_serve(nodes, rowbeam, json.loads(line))), flush=True)  # noqa: T201
    finally:
        nodes.shutdown()


def _serve(nodes: Nodes, rowbeam: Rowbeam, request: dict[str, Any]) -> dict[str, Any]:
    nodes.resize(request["nodes"])
    # Always the same size of a range, whatever the number of rows.
    job = rowbeam.backfill(request["tenant"], tables=["pull_requests"], prefer=Preference.FAST)
    return {"job_id": job.job_id, "state": str(job.state), "error": job.error}


if __name__ == "__main__":
    main()
