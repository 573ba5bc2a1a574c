"""What Rowbeam runs when it is given no servers: started when needed, left as found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Final

from ray_app.errors import RayUnavailable
from ray_app.settings import Settings
from ray_app.stack.files import exclusive, os_errors_as, private_folder
from ray_app.stack.postgres import EmbeddedPostgres
from ray_app.stack.ray_head import HeadRecord, RayHead
from ray_app.stack.ray_token import ray_variables
from ray_app.stack.serving import HttpServer, ServerStatus, check_port

#: Seconds to wait for another ``up`` or ``down``.
_LOCK_SECONDS: Final = 180.0


@dataclass(frozen=True)
class StackStatus:
    """What of the embedded stack runs now."""

    #: None when ``ROWBEAM_DATABASE_URL`` names a server, which is not ours to start.
    postgres_running: bool | None
    #: The head that ``up`` started, or None.
    head: HeadRecord | None
    #: The cluster that ``RAY_ADDRESS`` names, when it is not our own head.
    other_ray: str | None = None
    #: What this call started or stopped: ``postgres``, ``ray``.
    changed: tuple[str, ...] = ()
    #: The HTTP server, when ``up`` was asked for one.
    server: ServerStatus | None = None


class Stack:
    """The embedded Postgres and Ray head of one home.

    ``DatabaseUnavailable`` and ``RayUnavailable`` come out of every method; their hints say what to do.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._postgres = EmbeddedPostgres(settings) if settings.embedded_database else None
        self._ray = RayHead(settings)

    def up(self, *, server: bool = False) -> StackStatus:
        """Start Ray, and Postgres for as long as Ray runs; what runs already is left alone.

        With ``server`` the HTTP server too; when it does not start, a Ray that this call started is
        stopped again. With ``RAY_ADDRESS`` naming a cluster of somebody else nothing is started.

        Raises:
            ConfigError: the server's port is taken, or its configuration cannot be used.
        """
        if server and self.status().other_ray is None and not self._ray.serves():
            check_port(self._settings)
        status = self._up()
        if not server or status.head is None:
            return status
        try:
            with self._alone(), HttpServer(self._settings, status.head) as http:
                return replace(status, server=http.start())
        except BaseException:
            if "ray" in status.changed:
                self.down()
            raise

    def _up(self) -> StackStatus:
        with self._alone():
            before = self.status()
            if before.other_ray is not None:
                return before
            if before.head is not None:
                self.revive()
                return self._since(before)
            self._ray.stop()  # what an up or a head that was killed left behind
            if self._postgres is None:
                self._ray.start()
            else:
                with self._postgres.running():
                    hold = self._postgres.hold()
                    try:
                        self._ray.start(keep=hold)
                    finally:
                        hold.close()
            return self._since(before)

    def down(self) -> StackStatus:
        """Stop what ``up`` started. Postgres stays up while another process uses it.

        A server's requests under way are answered first.
        """
        if not self._settings.run_dir.is_dir():
            return self.status()
        with self._alone():
            before = self.status()
            if before.head is not None and self._ray.serves():
                # It is stopped all the same when it cannot be asked to end in order.
                with suppress(RayUnavailable), HttpServer(self._settings, before.head) as server:
                    server.stop()
            ray_ran = self._ray.stop()
            if self._postgres is not None:
                self._postgres.stop_if_unused()
            return self._since(before, ray_ran=ray_ran)

    def status(self) -> StackStatus:
        """What runs; starts nothing."""
        head = self._ray.status()
        other = self._settings.ray_address
        if head is not None and other in (head.address, head.dashboard_url):
            other = None
        running = self._postgres.is_running() if self._postgres is not None else None
        return StackStatus(running, head, other)

    @contextmanager
    def needed(self, *, database: bool = True) -> Iterator[None]:
        """What a command needs runs while this is open, and is left as it was found."""
        postgres = self._postgres if database else None
        with postgres.running() if postgres is not None else nullcontext():
            yield

    def revive(self) -> None:
        """Start the embedded Postgres again if it died inside ``needed``; another server is left alone."""
        if self._postgres is not None:
            self._postgres.ensure_running()

    def client_settings(self) -> Settings:
        """The settings, with the address of our own head when it runs and no other is named."""
        head = self._ray.status()
        if self._settings.ray_address is not None or head is None:
            return self._settings
        return self._settings.model_copy(update={"ray_address": head.address})

    def connection_env(self) -> dict[str, str]:
        """Variables that a process needs before it imports Ray, to join our head or start a private cluster.

        A cluster of somebody else, named by ``RAY_ADDRESS``, keeps its own authentication variables.
        """
        status = self.status()
        if status.other_ray is not None:
            return {"RAY_ADDRESS": status.other_ray}
        variables = self.authentication_env()
        if status.head is not None:
            variables["RAY_ADDRESS"] = status.head.address
            variables["RAY_API_SERVER_ADDRESS"] = status.head.dashboard_url
        return variables

    def authentication_env(self) -> dict[str, str]:
        """The part of ``connection_env`` that says how to be let in, not where."""
        return {} if self.status().other_ray is not None else ray_variables(self._settings)

    def _since(self, before: StackStatus, *, ray_ran: bool = False) -> StackStatus:
        now = self.status()
        changed = []
        if now.postgres_running != before.postgres_running:
            changed.append("postgres")
        if ray_ran or (now.head is None) != (before.head is None):
            changed.append("ray")
        return StackStatus(now.postgres_running, now.head, now.other_ray, tuple(changed))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with os_errors_as(RayUnavailable, "Starting or stopping the stack"):
            self._settings.home.mkdir(parents=True, exist_ok=True)
            with exclusive(private_folder(self._settings.run_dir) / "stack", wait=_LOCK_SECONDS):
                yield
