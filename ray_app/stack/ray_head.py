"""A Ray head of this home's own, in the background: ``rowbeam up`` and ``rowbeam down``.

Everything Ray starts carries the head's session folder, a random name under the temporary folder,
in its arguments or open files; that, and not a process id alone, says what may be stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Final

import httpx
import psutil

from ray_app.cores import usable_cores
from ray_app.errors import RayUnavailable
from ray_app.settings import Settings, child_environment
from ray_app.stack.files import SharedLock, os_errors_as, private_folder, short_folder, write_private
from ray_app.stack.processes import (
    descendants,
    kill,
    living,
    processes_where,
    terminate,
    wait_gone,
)
from ray_app.stack.ray_command import HOST, Ports, start_command
from ray_app.stack.ray_token import ray_variables

#: Logical CPUs of the head. They limit what is placed, not what is computed: a job's stages take 1.75
#: and Serve's replicas 2.35, which must fit on two cores too, or the job would wait for ever.
_MIN_CPUS: Final = 5
#: Times that a head is started when it ends by itself.
_STARTS: Final = 4
#: Seconds for a head to answer (7 on two cores), and for job drivers, the head and what is killed to end.
_START_SECONDS: Final = 120.0
_DRIVER_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 5.0
#: Seconds until a head has begun to end: an actor that ends before that is started again.
_NOTICE_SECONDS: Final = 1.0
_KILL_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.1
#: What ``ray start`` leaves in the session's folder when it has started.
_ADDRESS_FILE: Final = "ray_current_cluster"
#: The title of the process that every Serve has one of.
_SERVE: Final = "ray::ServeController"
_LOG_LINES: Final = 3
#: Read by Serve's processes when they start.
_SERVE_VARIABLES: Final = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.edge:middlewares",
    # Our replicas never block their event loop; a second one costs each call two changes of thread.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
}


@dataclass(frozen=True)
class HeadRecord:
    """What ``run/ray.json`` says of the head. ``pid`` is None until there is a process."""

    session: str
    address: str
    dashboard_url: str
    agent_url: str
    token_path: str
    pid: int | None = None
    #: Where the head shows its metrics; "" in the record of a head that an earlier version started.
    metrics_url: str = ""

    @property
    def metrics_targets(self) -> str:
        """Where Ray lists the metrics endpoints of all nodes, for Prometheus's ``file_sd_configs``."""
        return str(Path(self.session) / "prom_metrics_service_discovery.json")


class _EndedEarly(RayUnavailable):
    """A head ended by itself before it was ready."""


class RayHead:
    """The head that belongs to ``settings.home``. Start and stop it under the stack's lock."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._record = settings.run_dir / "ray.json"
        self.log = settings.run_dir / "ray.log"
        #: A link to ``metrics_targets`` that stays where it is, for the configuration of a Prometheus.
        self.targets = settings.run_dir / "prometheus-targets.json"

    def status(self) -> HeadRecord | None:
        """The head that runs, or None. Raises RayUnavailable when the record cannot be read."""
        record = self._read()
        return record if record is not None and self._head(record) is not None else None

    def serves(self) -> bool:
        """Whether Ray Serve runs on it, whoever started that."""
        record = self._read()
        return record is not None and any(
            processes_where(lambda it: _SERVE in " ".join(it.cmdline()), self._members(record))
        )

    def start(self, keep: SharedLock | None = None) -> HeadRecord:
        """Start a head and wait until it takes jobs. It lives on when this process ends, and holds ``keep``.

        Raises:
            RayUnavailable: it did not start; nothing of it is left running.
        """
        # Somebody else can take a port between its choice and Ray's use of it; there are others. And a raylet
        # ends itself when its agent, a Python process, is not up in 15 s, which nothing can change: beside
        # other work that is a matter of luck.
        for _ in range(_STARTS - 1):
            with suppress(_EndedEarly):
                return self._start(keep)
        try:
            return self._start(keep)
        except _EndedEarly as error:
            raise RayUnavailable(error.message, hint=error.hint) from error

    def _start(self, keep: SharedLock | None) -> HeadRecord:
        with os_errors_as(RayUnavailable, "Starting Ray"):
            private_folder(self._settings.run_dir)
            variables = ray_variables(self._settings)
            ports = Ports.free()
            record = HeadRecord(
                session=str(short_folder("rowbeam-")),
                address=f"{HOST}:{ports.gcs}",
                dashboard_url=f"http://127.0.0.1:{ports.dashboard}",
                agent_url=f"http://127.0.0.1:{ports.agent}",
                token_path=variables["RAY_AUTH_TOKEN_PATH"],
                metrics_url=f"http://{HOST}:{ports.metrics}/metrics",
            )
            # Before the process: whatever happens next, stop() finds it by its session.
            self._write(record)
            self.targets.unlink(missing_ok=True)
            self.targets.symlink_to(record.metrics_targets)
            try:
                process = self._spawn(record, ports, variables, keep)
                record = replace(record, pid=process.pid)
                self._write(record)
                self._wait_ready(record, process)
            except BaseException:
                self.stop()
                raise
        return record

    def stop(self) -> bool:
        """Stop the head and all that it started, also what a killed one left. Whether anything ran.

        Raises:
            RayUnavailable: a process would not end.
        """
        record = self._read()
        if record is None:
            return False
        members = self._members(record)
        head = self._head(record)
        if head is not None:
            # Job drivers lead sessions of their own, and Ray would kill them: let them say how they ended.
            terminate([process for process in members if not _in_session(process, head.pid)], _DRIVER_SECONDS)
            terminate([head], _NOTICE_SECONDS)
            # It waits without end for actors that outlive their jobs, as the vector store's owner does. All
            # they had to keep is on disk by then.
            terminate(processes_where(_is_worker, members), 0)
            wait_gone(members, _STOP_SECONDS)
        # Workers started meanwhile, and what outlives its head, are in the second count only.
        left = kill(members | self._members(record), _KILL_SECONDS)
        if left:
            raise RayUnavailable(f"Process {left[0].pid} of Ray does not end.", hint="Kill it by hand.")
        shutil.rmtree(record.session, ignore_errors=True)
        self.targets.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)
        return bool(members)

    def _spawn(
        self, record: HeadRecord, ports: Ports, variables: dict[str, str], keep: SharedLock | None
    ) -> subprocess.Popen[bytes]:
        # The caller's RAY_ADDRESS names another cluster.
        environment = child_environment(self._settings.model_copy(update={"ray_address": None}))
        paths = environment.get("PYTHONPATH", "")
        # Ray's job client goes there, whatever address it is given: another cluster, maybe one long gone.
        environment.pop("RAY_API_SERVER_ADDRESS", None)
        environment |= variables | ports.variables() | _SERVE_VARIABLES
        if paths:  # workers run in other directories
            environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))
        command = start_command(ports, session=record.session, num_cpus=max(usable_cores(), _MIN_CPUS))
        with _open_log(self.log) as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(keep.descriptor,) if keep is not None else (),
            )

    def _wait_ready(self, record: HeadRecord, process: subprocess.Popen[bytes]) -> None:
        """The agent takes jobs and comes up last; the dashboard takes them in.

        Ray itself may still give up, when its node is not in the cluster 30 seconds after its start; it has
        not, once the file with the cluster's address is there.
        """
        token = Path(record.token_path).read_text(encoding="ascii")
        waiting = [f"{record.agent_url}/api/local_raylet_healthz", f"{record.dashboard_url}/api/version"]
        joined = Path(record.session) / _ADDRESS_FILE
        deadline = time.monotonic() + _START_SECONDS
        # Not through a proxy: it is this machine.
        with httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=5, trust_env=False) as client:
            while waiting or not joined.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    ended = process.poll() is not None
                    what = "ended" if ended else f"took over {_START_SECONDS:.0f} s"
                    raise (_EndedEarly if ended else RayUnavailable)(
                        f"Ray did not start, it {what}: {self._last_words()}", hint=f"See {self.log}."
                    )
                if waiting and _answers(client, waiting[0]):
                    del waiting[0]
                else:
                    time.sleep(_POLL_SECONDS)

    def _head(self, record: HeadRecord) -> psutil.Process | None:
        """The head's own process, found even when nobody lived to write its id down."""
        argument = f"--temp-dir={record.session}"

        def is_head(process: psutil.Process) -> bool:
            command = process.cmdline()
            return argument in command and "ray.scripts.scripts" in command

        candidates = None if record.pid is None else living(record.pid)
        return next(processes_where(is_head, candidates), None)

    def _members(self, record: HeadRecord) -> set[psutil.Process]:
        """Everything alive of the cluster: the head's session, and what was started from it (job drivers).

        Without a head, a process of that session id must also use the session's folder.
        """
        head = self._head(record)
        leader = head.pid if head is not None else record.pid
        if leader is None:
            return set()

        def is_member(process: psutil.Process) -> bool:
            return _in_session(process, leader) and (head is not None or _uses(process, record.session))

        return descendants(processes_where(is_member))

    def _read(self) -> HeadRecord | None:
        with os_errors_as(RayUnavailable, "Looking for Ray"):
            try:
                return HeadRecord(**json.loads(self._record.read_text(encoding="utf-8")))
            except FileNotFoundError:
                return None
            except (ValueError, TypeError) as error:
                raise RayUnavailable(
                    f"{self._record} cannot be understood.", hint="Stop Ray by hand, then delete the file."
                ) from error

    def _write(self, record: HeadRecord) -> None:
        write_private(self._record, json.dumps(asdict(record), indent=2) + "\n")

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return " ".join([line.strip() for line in lines if line.strip()][-_LOG_LINES:])


def _open_log(path: Path) -> IO[bytes]:
    def private(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    return open(path, "wb", opener=private)


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _is_worker(process: psutil.Process) -> bool:
    return " ".join(process.cmdline()).startswith("ray::")


def _in_session(process: psutil.Process, leader: int) -> bool:
    try:
        return os.getsid(process.pid) == leader
    except ProcessLookupError:
        return False


def _uses(process: psutil.Process, folder: str) -> bool:
    return any(folder in argument for argument in process.cmdline()) or any(
        file.path.startswith(folder) for file in process.open_files()
    )
