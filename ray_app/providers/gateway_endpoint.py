"""From the configured URL and key to where requests go and how they are signed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ray_app.errors import ConfigError
from ray_app.settings import GatewaySettings

#: Azure's latest stable data-plane version; a URL that names one keeps its own.
_AZURE_API_VERSION: Final = "2024-10-21"
_AZURE_HOSTS: Final = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
_AZURE_DEPLOYMENT: Final = re.compile(r"/openai/deployments/[^/]+")
_VERSION: Final = re.compile(r"/v\d+[a-z0-9]*(?=/|$)")
#: What a header value may hold; anything else makes the HTTP library quote the key in its error.
_KEY: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Endpoint:
    """Where embeddings are asked for. ``label`` is safe to show: no path, no query, no credentials."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    label: str


def endpoint_of(settings: GatewaySettings) -> Endpoint:
    """The endpoint that ``settings`` mean.

    - ``…/embeddings``: used as it is.
    - ``…/openai/deployments/NAME``: Azure; ``/embeddings`` and ``api-version`` are added where missing.
    - a bare Azure host: its OpenAI-compatible ``/openai/v1/embeddings``.
    - anything else: the path, with ``/v1`` unless it names a version, and ``/embeddings``.

    Azure takes the key in ``api-key``, everybody else as a bearer token.

    Raises:
        ConfigError: the URL is not http(s) or the key cannot be sent in a header.
    """
    try:
        parts = urlsplit(settings.url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigError(
            "ROWBEAM_GATEWAY_URL is not an http or https URL.", hint="Example: https://api.openai.com/v1"
        )
    azure_host = host.endswith(_AZURE_HOSTS)
    deployment = _AZURE_DEPLOYMENT.search(parts.path) is not None
    query = parse_qsl(parts.query, keep_blank_values=True)
    if deployment and "api-version" not in dict(query):
        query.append(("api-version", _AZURE_API_VERSION))
    path = _path(parts.path.rstrip("/"), azure_host=azure_host, deployment=deployment)
    return Endpoint(
        url=urlunsplit((parts.scheme, parts.netloc, path, urlencode(query), "")),
        headers=_headers(settings, azure=azure_host or deployment),
        label=host if port is None else f"{host}:{port}",
    )


def _path(path: str, *, azure_host: bool, deployment: bool) -> str:
    if path.endswith("/embeddings"):
        return path
    if azure_host and not path:
        path = "/openai"
    if deployment or _VERSION.search(path):
        return f"{path}/embeddings"
    return f"{path}/v1/embeddings"


def _headers(settings: GatewaySettings, *, azure: bool) -> dict[str, str]:
    headers = {"content-type": "application/json", "accept": "application/json"}
    key = settings.api_key.get_secret_value().strip() if settings.api_key else ""
    if not key:
        return headers
    if not _KEY.fullmatch(key):
        raise ConfigError(
            "ROWBEAM_GATEWAY_API_KEY holds a space or a character that is not ASCII.",
            hint="Copy the key again, without quotes.",
        )
    return headers | ({"api-key": key} if azure else {"authorization": f"Bearer {key}"})
