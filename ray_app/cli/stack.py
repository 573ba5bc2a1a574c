"""``rowbeam up``, ``down``, ``doctor`` and ``demo``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ray_app.cli.output import FAILED, OK, AsJson, emit, emit_json, note

if TYPE_CHECKING:
    from ray_app.settings import Settings
    from ray_app.stack.embedded import StackStatus
    from ray_app.stack.serving import ServerStatus


def up(
    no_server: Annotated[
        bool, typer.Option("--no-server", help="Start no HTTP server, only what jobs need.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Start the embedded Postgres, Ray and the HTTP server, and leave them running."""
    from ray_app.settings import Settings
    from ray_app.stack.embedded import Stack

    settings = Settings.from_env()
    stack = Stack(settings)
    status = stack.up(server=not no_server)
    _show(status, "Started", as_json=as_json)
    if status.server is not None and not as_json:
        _show_server(status.server, settings)
    if status.head is not None and not as_json:
        note("For ray job submit and the other ray commands:")
        for name, value in stack.connection_env().items():
            note(f"  export {name}={shlex.quote(value)}")
    return FAILED if status.server is not None and status.server.not_ready else OK


def serve() -> int:
    """Run the HTTP server and all it needs until SIGTERM or Ctrl-C; then finish its requests and stop.

    For containers and systemd, which want a process to watch. A second signal does not wait.
    """
    from ray_app.settings import Settings
    from ray_app.stack.foreground import serve as run

    settings = Settings.from_env()

    def on_ready(status: StackStatus) -> None:
        _show(status, "Started", as_json=False)
        if status.server is not None:
            _show_server(status.server, settings)

    run(settings, on_ready)
    return OK


def down(as_json: AsJson = False) -> int:
    """Stop what `rowbeam up` started; requests under way are answered first."""
    from ray_app.settings import Settings
    from ray_app.stack.embedded import Stack

    _show(Stack(Settings.from_env()).down(), "Stopped", as_json=as_json)
    return OK


def doctor(as_json: AsJson = False) -> int:
    """Check the database, Qdrant, the model, the gateway and Ray; say what to do about what is wrong."""
    from ray_app.cli import rendering
    from ray_app.settings import Settings
    from ray_app.stack.doctor import run_checks

    checks = run_checks(Settings.from_env())
    ok = all(check.ok for check in checks)
    if as_json:
        emit_json({"ok": ok, "checks": checks})
    else:
        emit(checks, rendering.checks, as_json=False)
    return OK if ok else FAILED


def demo(
    repo: Annotated[
        Path | None, typer.Option("--repo", help="A git checkout whose commits the first tenant gets too.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running at the end, with a job for the console.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Show everything once: two invented tenants, loaded, planned, embedded, searched, kept apart.

    Works in the folder demo under ROWBEAM_HOME with a stack of its own, and starts afresh each time.
    """
    from ray_app.cli.demo import run_demo

    return run_demo(repo, keep=keep, as_json=as_json)


def _show(status: StackStatus, verb: str, *, as_json: bool) -> None:
    if as_json:
        emit_json(status_document(status))
        return
    names = {"postgres": "Postgres", "ray": "Ray"}
    changed = " and ".join(names.get(name, name) for name in status.changed)
    note(f"{verb} {changed}." if changed else "Nothing to do.")
    if status.postgres_running is not None:
        note(f"Postgres  {'runs' if status.postgres_running else 'does not run'}")
    else:
        note("Postgres  is the server that ROWBEAM_DATABASE_URL names")
    if status.head is not None:
        note(f"Ray       runs at {status.head.address}, dashboard {status.head.dashboard_url}")
        if status.head.metrics_url:
            note(f"Metrics   {status.head.metrics_url}, for Prometheus {status.head.metrics_targets}")
    else:
        note(f"Ray       {f'is the cluster at {status.other_ray}' if status.other_ray else 'does not run'}")


def _show_server(server: ServerStatus, settings: Settings) -> None:
    from ray_app.stack.admin_key import admin_key_path

    note(f"Server    {server.url}, documentation {server.url}/docs, console {server.url}/console")
    for reason in server.not_ready:
        note(f"          not ready: {reason}")
    where = "ROWBEAM_ADMIN_KEY" if settings.admin_key is not None else admin_key_path(settings)
    note(f"Admin key in {where}")


def status_document(status: StackStatus) -> dict[str, Any]:
    """What runs, without the paths of secrets that a head's record names."""
    head, server = status.head, status.server
    ray = head and {
        "address": head.address,
        "dashboard_url": head.dashboard_url,
        "metrics_url": head.metrics_url,
        "metrics_targets": head.metrics_targets,
    }
    return {
        "postgres_running": status.postgres_running,
        "ray": ray,
        "other_ray": status.other_ray,
        "server": {"url": server.url, "not_ready": list(server.not_ready)} if server else None,
        "changed": list(status.changed),
    }
