"""The HTTP server on our own head: started by ``rowbeam up``, drained by ``rowbeam down``."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import httpx
import yaml

from ray_app.errors import ConfigError, RayUnavailable
from ray_app.settings import Settings
from ray_app.stack.ray_head import HeadRecord

#: What ``serve deploy`` takes too; named as text, because nothing in here imports deployments.
_PACKAGE: Final = "deployments"
_CONFIG: Final = "serve.yaml"
_APPLICATION: Final = "rowbeam"
_ROUTER: Final = "Router"
_PATH: Final = "/api/serve/applications/"
_RUNNING: Final = "RUNNING"
_UPDATING: Final = "UPDATING"
_FAILED: Final = ("DEPLOY_FAILED", "UNHEALTHY")
#: Seconds for Serve and all replicas to come up; 25 on two busy cores, the model's load included.
_START_SECONDS: Final = 180.0
#: Seconds for a provider that is slow to answer its first check.
_READY_SECONDS: Final = 20.0
#: Seconds for requests under way to end; the router waits no longer either.
_DRAIN_SECONDS: Final = 70.0
#: Seconds for one call of the dashboard, which starts or stops Serve inside it.
_CALL_SECONDS: Final = 90.0
_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True)
class ServerStatus:
    """A server that runs."""

    url: str
    #: What cannot serve now, in words; empty when everything can.
    not_ready: tuple[str, ...] = ()


class HttpServer:
    """The Serve application on a head of ours, through the dashboard. Close it when done."""

    def __init__(self, settings: Settings, head: HeadRecord) -> None:
        self._settings = settings
        token = Path(head.token_path).read_text(encoding="ascii")
        # Not through a proxy: it is this machine.
        self._dashboard = httpx.Client(
            base_url=head.dashboard_url,
            headers={"authorization": f"Bearer {token}"},
            timeout=_CALL_SECONDS,
            trust_env=False,
        )

    def __enter__(self) -> HttpServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dashboard.close()

    def start(self) -> ServerStatus:
        """Start it, when it does not run yet, and wait until every part runs and it answers.

        Raises:
            ConfigError: its configuration cannot be used.
            RayUnavailable: it does not start.
        """
        details = self._details()
        application = details["applications"].get(_APPLICATION)
        if application is None:
            self._put(_config(self._settings))
        elif _drain_of(application) not in (None, "off"):  # a down that was killed on its way
            self._put(_with_drain(details, "off"))
        self._wait_running()
        return self._wait_ready(_url(self._details()["http_options"]))

    def stop(self) -> None:
        """Turn new requests away, wait for those under way to end, then stop every part.

        Raises:
            RayUnavailable: the dashboard does not answer, or they took too long.
        """
        details = self._details()
        application = details["applications"].get(_APPLICATION)
        if application is not None and application.get("deployed_app_config"):
            for drain in ("refuse", "wait"):
                self._put(_with_drain(details, drain))
                self._wait_drained(drain)
        self._call("DELETE")

    def _details(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._call("GET").json()
        return answer

    def _put(self, document: Mapping[str, Any]) -> None:
        self._call("PUT", json=document)

    def _call(self, method: str, **options: Any) -> httpx.Response:
        try:
            answer = self._dashboard.request(method, _PATH, **options)
        except httpx.TransportError as error:
            raise RayUnavailable(
                f"Ray's dashboard does not answer ({type(error).__name__}).",
                hint="Run rowbeam down, then rowbeam up.",
            ) from error
        if not answer.is_success:
            raise RayUnavailable(f"Ray Serve answers {answer.status_code}: {_last_line(answer.text)}")
        return answer

    def _wait_running(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            application = self._details()["applications"].get(_APPLICATION, {})
            status = application.get("status")
            if status == _RUNNING:
                return
            if status in _FAILED:
                raise RayUnavailable(f"The server does not start: {_last_line(application['message'])}")
            if time.monotonic() > deadline:
                raise RayUnavailable(
                    f"The server is still {status} after {_START_SECONDS:.0f} s.",
                    hint="See run/ray.log in the home directory.",
                )
            time.sleep(_POLL_SECONDS)

    def _wait_drained(self, drain: str) -> None:
        """Until every router has done what it was told; the other parts do not matter any more."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while True:
            application = self._details()["applications"][_APPLICATION]
            router = application["deployments"].get(_ROUTER, {})
            if _drain_of(application) == drain and router.get("status") != _UPDATING:
                return
            if time.monotonic() > deadline:
                raise RayUnavailable(f"Requests did not end in {_DRAIN_SECONDS:.0f} s.")
            time.sleep(_POLL_SECONDS)

    def _wait_ready(self, url: str) -> ServerStatus:
        deadline = time.monotonic() + _READY_SECONDS
        with httpx.Client(base_url=url, timeout=_READY_SECONDS, trust_env=False) as client:
            while True:
                not_ready = _not_ready(client)
                if not not_ready or time.monotonic() > deadline:
                    return ServerStatus(url, not_ready)
                time.sleep(_POLL_SECONDS)


def _config(settings: Settings) -> dict[str, Any]:
    """The Serve config in force, with the host and port that the environment names.

    Raises:
        ConfigError: it cannot be read, or has no application of ours.
    """
    own = settings.serve_config
    try:
        text = (own or files(_PACKAGE) / _CONFIG).read_text(encoding="utf-8")
        document: dict[str, Any] = yaml.safe_load(text)
        names = [application["name"] for application in document["applications"]]
        options = dict(document.get("http_options") or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise ConfigError(
            f"The Serve config {own} cannot be used ({type(error).__name__}).",
            hint="Start from deployments/serve.yaml.",
        ) from error
    if _APPLICATION not in names:
        raise ConfigError(f"The Serve config {own} has no application named {_APPLICATION}.")
    for field, setting in (("host", "http_host"), ("port", "http_port")):
        if setting in settings.model_fields_set or field not in options:
            options[field] = getattr(settings, setting)
    document = {**document, "http_options": options}
    if settings.log_format is not None:
        logging_config = document.get("logging_config") or {}
        document["logging_config"] = {**logging_config, "encoding": settings.log_format.upper()}
    return document


def _not_ready(client: httpx.Client) -> tuple[str, ...]:
    """What ``/readyz`` names."""
    try:
        answer = client.get("/readyz")
    except httpx.TransportError as error:
        return (f"The server does not answer ({type(error).__name__}).",)
    if answer.is_success:
        return ()
    try:
        return tuple(map(str, answer.json()["not_ready"]))
    except (ValueError, LookupError, TypeError):
        return (f"The server answers {answer.status_code}.",)


def _drain_of(application: Mapping[str, Any]) -> str | None:
    """What the routers of an application are told to do; None when there is none yet."""
    router = application["deployments"].get(_ROUTER)
    return router["deployment_config"]["user_config"]["drain"] if router else None


def _with_drain(details: Mapping[str, Any], drain: str) -> dict[str, Any]:
    """What is deployed now, with the routers told to; Serve deletes what is not in it."""
    deployed = {
        name: dict(application["deployed_app_config"])
        for name, application in details["applications"].items()
        if application.get("deployed_app_config")
    }
    application = deployed[_APPLICATION]
    parts: dict[str, dict[str, Any]] = {part["name"]: part for part in application.get("deployments") or []}
    parts[_ROUTER] = {**parts.get(_ROUTER, {}), "name": _ROUTER, "user_config": {"drain": drain}}
    application["deployments"] = list(parts.values())
    return {
        "proxy_location": details["proxy_location"],
        "http_options": details["http_options"],
        "applications": list(deployed.values()),
    }


def check_port(settings: Settings) -> None:
    """See that a server could listen where it should; before anything is started for it.

    Raises:
        ConfigError: it could not.
    """
    options = _config(settings)["http_options"]
    host, port = options["host"], options["port"]
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"The server cannot listen on port {port} of {host}: {error.strerror or error}.",
            hint="Set ROWBEAM_HTTP_PORT to a free port, or stop what uses this one.",
        ) from error


def _url(options: Mapping[str, Any]) -> str:
    """Where to reach a server with these ``http_options`` from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options["host"], options["host"])  # noqa: S104
    return f"http://[{host}]:{options['port']}" if ":" in host else f"http://{host}:{options['port']}"


def _last_line(text: str) -> str:
    """The error at the end of a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason is given."
