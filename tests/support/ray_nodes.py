"""Nodes of one Ray cluster as processes of this machine, started as the systemd units start them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import httpx
import psutil

from ray_app.settings import Settings, child_environment
from ray_app.stack.processes import descendants, kill, processes_where
from ray_app.stack.ray_token import ray_variables
from tests.support.deploy_files import ROOT, VENV, environment_example, ports, unit_command, unit_setting
from tests.support.ports import free_ports
from tests.support.waiting import wait_for

#: The head's address. Of 127.0.0.1 Ray makes the machine's outer address in a cluster of several nodes; any
#: other of the loopback network is left alone.
HOST = "127.0.0.2"
#: A worker sees no process of another node and has a name of its own, as on a machine of its own: Ray would
#: take a driver to the head's raylet, on whichever node it runs, when it finds one on the machine.
_ALONE = ("unshare", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")
_NAMED = ("sh", "-c", 'hostname "$0" && exec "$@"')
#: Starts of a node: Ray gives up one whose agent is not up in 15 seconds, and systemd starts the next.
STARTS = 5
#: Written when ``ray start`` has found its node in the cluster.
_ADDRESS_FILE = "ray_current_cluster"
#: Bytes of a node's object store.
OBJECT_STORE = 128 * 1024**2


def alive_nodes(dashboard: httpx.Client) -> int:
    """Nodes that the cluster counts, the head among them; ``dashboard`` sends the cluster's token."""
    answer = dashboard.get(
        "/api/v0/nodes",
        params={"filter_keys": "state", "filter_predicates": "=", "filter_values": "ALIVE"},
    )
    return len(answer.json()["data"]["result"]["result"])


def machine(name: str) -> list[str]:
    """The beginning of a command line that runs the rest as if on a machine called ``name``."""
    assert shutil.which("unshare"), "unshare is not installed (Debian: apt-get install util-linux)"
    unprivileged = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return [*_ALONE, *unprivileged, *_NAMED, name]


def _first_served() -> list[str]:
    """The beginning of a head's command line: its agent has 15 seconds, whatever else the machine does."""
    return ["nice", "-n", "-10"] if os.geteuid() == 0 else []


class Node:
    """One machine of the cluster, or what plays one: the processes of one ``ray start``."""

    def __init__(self, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self.folder = folder
        self._log = (folder.parent / f"{folder.name}.log").open("ab")
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def has_joined(self) -> bool:
        return (self.folder / _ADDRESS_FILE).exists()

    def members(self) -> set[psutil.Process]:
        """Every process of the node, those that outlived their parent too."""
        mine = f"{self.folder}/"

        def is_mine(process: psutil.Process) -> bool:
            return process.pid == self._process.pid or any(
                f"{word}/".partition("=")[2].startswith(mine) for word in process.cmdline()
            )

        return descendants(processes_where(is_mine))

    def kill(self) -> None:
        """SIGKILL to each process by its id, as when the machine loses its power."""
        found = self.members()
        assert kill(found, 20) == []
        assert kill(self.members(), 20) == []
        self._process.wait()
        self._log.close()


def _has_settled(node: Node, is_up: Callable[[], bool]) -> bool:
    return node.has_ended() or (node.has_joined() and is_up())


class Cluster:
    """A head without CPUs and workers, on ports of their own. Use as a context."""

    def __init__(self, settings: Settings, variables: Mapping[str, str] | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="rb-n-"))
        named = unit_setting("rowbeam-head", "Environment").split()
        head = list(ports(unit_command("rowbeam-head")))
        chosen = iter(free_ports(len(head) + len(named)))
        self._ports = dict(zip(head, chosen, strict=False))
        given = {name: value for name, value in environment_example().items() if name.startswith("RAY_")}
        self.environment = (
            child_environment(settings) | given | ray_variables(settings) | dict(variables or {})
        )
        self.environment |= {
            word.partition("=")[0]: str(port) for word, port in zip(named, chosen, strict=True)
        }
        del self.environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]  # for a cluster of one node alone
        self.environment["PYTHONPATH"] = str(ROOT)
        self.environment["PATH"] = f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}"
        self.address = f"{HOST}:{self._ports['--port']}"
        self.dashboard = f"http://127.0.0.1:{self._ports['--dashboard-port']}"
        self.head: Node | None = None
        self.workers: list[Node] = []

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """All nodes, at once."""
        for node in (*self.workers, self.head):
            if node is not None:
                node.kill()
        self.workers, self.head = [], None

    def start_head(self) -> Node:
        """The one node with a GCS; after a kill another, on the same ports."""
        self.head = self._start("rowbeam-head", self._ports, "head", is_up=self._dashboard_answers)
        return self.head

    def start_worker(self, cpus: int, address: str = "127.0.0.3") -> Node:
        names = list(ports(unit_command("rowbeam-worker")))
        own = dict(zip(names, free_ports(len(names)), strict=True))
        name = f"w{len(self.workers)}"
        node = self._start("rowbeam-worker", own, name, f"--num-cpus={cpus}", address=address)
        self.workers.append(node)
        return node

    def ray(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """The ``ray`` command as somebody on the head calls it."""
        return subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", *arguments],
            env=self.client_environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def shell(self, command: str) -> str:
        """What a command of an operator on the head prints; it must succeed."""
        done = subprocess.run(
            ["bash", "-c", command],
            env=self.client_environment() | {"RAY_ADDRESS": self.address},
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def client_environment(self) -> dict[str, str]:
        return self.environment | {"RAY_API_SERVER_ADDRESS": self.dashboard, "COLUMNS": "200"}

    def http(self) -> httpx.Client:
        """For the dashboard, with the cluster's token."""
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text(encoding="ascii")
        return httpx.Client(
            base_url=self.dashboard, headers={"authorization": f"Bearer {token}"}, timeout=10, trust_env=False
        )

    def alive_nodes(self) -> int:
        """Nodes that the GCS counts, the head among them."""
        with self.http() as client:
            return alive_nodes(client)

    def wait_for_nodes(self, count: int) -> None:
        def are_there() -> bool:
            assert self.head is not None
            for node in (self.head, *self.workers):
                assert not node.has_ended(), node.log
            try:
                return self.alive_nodes() >= count
            except httpx.TransportError:
                return False

        wait_for(are_there)

    def _start(
        self,
        unit: str,
        own: Mapping[str, int],
        name: str,
        *more: str,
        address: str = HOST,
        is_up: Callable[[], bool] = lambda: True,
    ) -> Node:
        """A node that has joined the cluster and ``is_up``. One that ends is started again, as by systemd."""
        assert unit_setting(unit, "Restart") == "always"
        for _ in range(STARTS):
            # The last one's. With it, Ray takes a worker on this machine for a sign that the head runs.
            (self._folder / name / _ADDRESS_FILE).unlink(missing_ok=True)
            node = self._run(unit, own, name, *more, address=address)
            wait_for(partial(_has_settled, node, is_up))
            if not node.has_ended():
                return node
            node.kill()
        raise AssertionError(node.log)

    def _run(self, unit: str, own: Mapping[str, int], name: str, *more: str, address: str) -> Node:
        variables = self.environment | {"ROWBEAM_HEAD": HOST}
        folder = self._folder / name
        head = f"--address={self.address}"
        command = []
        for word in unit_command(unit, variables):
            option = word.partition("=")[0]
            if option == "--temp-dir":
                command.append(f"--temp-dir={folder}")
            elif option == "--address":
                command.append(head)
            elif option in own:
                command.append(f"{option}={own[option]}")
            else:
                command.append(word)
        assert command[0] == f"{VENV}/bin/ray"
        command[:1] = [sys.executable, "-m", "ray.scripts.scripts"]
        command += [f"--node-ip-address={address}", f"--object-store-memory={OBJECT_STORE}", *more]
        # A range as wide as a machine's own does not fit beside others: any free port.
        command = [
            word for word in command if not word.startswith(("--min-worker-port", "--max-worker-port"))
        ]
        command += ["--min-worker-port=0", "--max-worker-port=0"]
        before = machine(name) if unit == "rowbeam-worker" else _first_served()
        return Node([*before, *command], variables, folder)

    def _dashboard_answers(self) -> bool:
        try:
            with self.http() as client:
                return client.get("/api/version").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False
