"""Checks of what embeds texts and what runs the jobs."""

from __future__ import annotations

import socket
from importlib.metadata import version
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import httpx

from ray_app.encoders.device import likely_device
from ray_app.encoders.loading import stored_choice
from ray_app.encoders.model_files import find_model
from ray_app.encoders.stub import StubOptions
from ray_app.errors import ConfigError, ProviderRefused, ProviderUnavailable, RayUnavailable
from ray_app.providers.gateway_endpoint import endpoint_of
from ray_app.settings import BUNDLED_MODEL, Settings
from ray_app.stack.embedded import Stack

_TIMEOUT_SECONDS: Final = 10.0
#: The Ray minor that ``pyproject.toml`` pins.
_RAY_MINOR: Final = "2.60."
#: Where ``RAY_ADDRESS`` has no port of its own.
_DEFAULT_PORTS: Final = {"ray": 10001, "http": 80, "https": 443, "": 6379}


def check_model(settings: Settings) -> str:
    """The local model's files; their digest where it is known. Nothing is fetched, torch not loaded.

    Raises:
        ConfigError: a file is missing, damaged or not what it should be.
    """
    name = settings.local_model
    if StubOptions.parse(name) is not None:
        return "stub: deterministic vectors, for tests and benchmarks"
    if _on_a_hub(name):
        return f"{name}, from the model hub when it is first used; not checked"
    files = find_model(name)
    dimensions = files.config().dimensions
    files.check()
    checked = "weights verified by SHA-256" if files.sha256 else f"in {files.folder}"
    return f"{files.name}, {dimensions} dimensions, {checked}"


def check_encoder(settings: Settings) -> str:
    """What encodes the local model's texts, and why; as stored when it was chosen. Raises ConfigError."""
    name = settings.local_model
    if StubOptions.parse(name) is not None:
        return "stub"
    device = likely_device()
    if device != "cpu":
        return f"torch on {device}"
    first = f"chosen and measured at first use, which takes a minute (precision: {settings.precision})"
    if _on_a_hub(name):
        return first
    choice = stored_choice(settings)
    if choice is None:
        return first
    refused = f"; refused: {', '.join(choice.refusals)}" if choice.refusals else ""
    return f"{choice.backend} (precision: {settings.precision}), the fastest of {choice.why}{refused}"


def check_gateway(settings: Settings) -> str:
    """Whether it answers and takes the key, by listing its models, which costs nothing.

    Raises:
        ProviderUnavailable: it does not answer.
        ProviderRefused: it refuses the key.
        ConfigError: its URL or key cannot be used.
    """
    if settings.gateway is None:
        return "Not configured; texts are embedded on this machine (set ROWBEAM_GATEWAY_URL to use one)"
    endpoint = endpoint_of(settings.gateway)
    try:
        answer = httpx.get(
            _models_url(endpoint.url), headers=dict(endpoint.headers), timeout=_TIMEOUT_SECONDS
        )
    except httpx.TransportError as error:
        raise ProviderUnavailable(
            f"The gateway at {endpoint.label} does not answer ({type(error).__name__}).",
            hint="Check ROWBEAM_GATEWAY_URL, the network and the proxy settings.",
        ) from error
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise ProviderRefused(
            f"The gateway at {endpoint.label} refuses the key.", hint="Check ROWBEAM_GATEWAY_API_KEY."
        )
    if answer.is_server_error:
        raise ProviderUnavailable(
            f"The gateway at {endpoint.label} answers {answer.status_code}.", hint="Try again later."
        )
    if not answer.is_success:
        return f"{endpoint.label} answers but lists no models, so its key and model are not verified"
    key = "takes the key" if settings.gateway.api_key else "asks for no key"
    return f"{endpoint.label} answers and {key}; that it has {settings.gateway.model} is not verified"


def check_ray(settings: Settings) -> str:
    """Raises RayUnavailable, ConfigError."""
    installed = version("ray")
    if not installed.startswith(_RAY_MINOR):
        raise ConfigError(f"Ray {installed} is installed.", hint='Run pip install "ray>=2.60,<2.61".')
    status = Stack(settings).status()
    if status.other_ray is not None:
        return f"Ray {installed}; {_reach(status.other_ray)}"
    head = status.head
    if head is None:
        return f"Ray {installed}; each job starts a private cluster (rowbeam up keeps one running)"
    token = Path(head.token_path).read_text(encoding="ascii")
    try:
        answer = httpx.get(
            f"{head.dashboard_url}/api/version",
            headers={"authorization": f"Bearer {token}"},
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,
        )
    except httpx.TransportError as error:
        raise RayUnavailable(
            f"The Ray head at {head.address} runs but does not answer.",
            hint="Run rowbeam down, then rowbeam up.",
        ) from error
    if not answer.is_success:
        raise RayUnavailable(
            f"The Ray head at {head.address} answers {answer.status_code}.",
            hint="Its token was changed: run rowbeam down, then rowbeam up.",
        )
    return f"Ray {installed}; head at {head.address}, dashboard {head.dashboard_url}"


def _on_a_hub(name: str) -> bool:
    if name == BUNDLED_MODEL or Path(name).expanduser().is_dir():
        return False
    return "/" in name and not name.startswith((".", "/", "~"))


def _models_url(embeddings_url: str) -> str:
    """``…/models`` beside ``…/embeddings``; an Azure deployment's are two levels up."""
    parts = urlsplit(embeddings_url)
    path = parts.path.removesuffix("/embeddings")
    path, _, _ = path.partition("/deployments/")
    return urlunsplit(parts._replace(path=f"{path}/models"))


def _reach(address: str) -> str:
    """Open and close a connection to the cluster's port. Raises RayUnavailable."""
    if address in ("auto", "local"):
        return f"RAY_ADDRESS is {address!r}; not checked"
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme, 6379)
    except ValueError:
        host, port = None, 0
    if not host:
        raise ConfigError(f"RAY_ADDRESS is {address!r}.", hint="Use HOST:6379, or ray://HOST:10001.")
    try:
        socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS).close()
    except OSError as error:
        raise RayUnavailable(
            f"Nothing answers at RAY_ADDRESS {host}:{port}.",
            hint="Start that cluster, or unset RAY_ADDRESS to use a local one.",
        ) from error
    return f"the cluster at {host}:{port} answers"
