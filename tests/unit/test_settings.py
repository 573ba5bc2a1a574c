"""Settings from the environment: parsed, complete, and silent about secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ray_app.errors import ConfigError
from ray_app.settings import BUNDLED_MODEL, GatewaySettings, Settings, child_environment

SECRET = "hunter2-very-secret"
FULL = {
    "ROWBEAM_HOME": "/srv/rowbeam",
    "ROWBEAM_DATABASE_URL": f"postgresql://app:{SECRET}@db/ledger",
    "ROWBEAM_SOURCE_URL": f"postgresql://app:{SECRET}@db/platform",
    "ROWBEAM_QDRANT_URL": "http://qdrant:6333",
    "ROWBEAM_QDRANT_API_KEY": f"q-{SECRET}",
    "ROWBEAM_ADMIN_KEY": f"a-{SECRET}",
    "ROWBEAM_LOCAL_MODEL": "stub:5",
    "ROWBEAM_CONFIG": "/etc/rowbeam.toml",
    "ROWBEAM_ENCODER_THREADS": "3",
    "ROWBEAM_OUTAGE_BUDGET": "7.5",
    "ROWBEAM_ERASURE_RETENTION_HOURS": "48",
    "ROWBEAM_HTTP_HOST": "10.0.0.7",
    "ROWBEAM_HTTP_PORT": "8080",
    "ROWBEAM_SERVE_CONFIG": "/etc/serve.yaml",
    "ROWBEAM_GATEWAY_URL": "https://gateway/v1",
    "ROWBEAM_GATEWAY_API_KEY": f"g-{SECRET}",
    "ROWBEAM_GATEWAY_MODEL": "text-embedding-3-large",
    "ROWBEAM_GATEWAY_DIMENSIONS": "256",
    "ROWBEAM_GATEWAY_PRICE_PER_MILLION": "0.13",
    "ROWBEAM_GATEWAY_MAX_INPUTS": "16",
    "ROWBEAM_GATEWAY_MAX_TOKENS": "8000",
    "ROWBEAM_GATEWAY_RPM": "3000",
    "ROWBEAM_GATEWAY_TPM": "1000000",
    "ROWBEAM_GATEWAY_CHUNK_TOKENS": "500",
    "ROWBEAM_GATEWAY_TIMEOUT": "9",
    "ROWBEAM_GATEWAY_OUTAGE_BUDGET": "11",
    "RAY_ADDRESS": "ray-head:6379",
}


def test_nothing_set_means_everything_embedded() -> None:
    settings = Settings.from_env({})
    assert settings.home == Path(".rowbeam").absolute()
    assert settings.embedded_database
    assert settings.embedded_store
    assert settings.gateway is None
    assert settings.local_model == BUNDLED_MODEL
    assert all(
        folder.is_relative_to(settings.home)
        for folder in (settings.postgres_dir, settings.edge_dir, settings.run_dir)
    )


def test_every_variable_is_read() -> None:
    settings = Settings.from_env(FULL)
    gateway = settings.gateway
    assert gateway is not None
    assert settings.home == Path("/srv/rowbeam")
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == FULL["ROWBEAM_DATABASE_URL"]
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value() == FULL["ROWBEAM_ADMIN_KEY"]
    assert not settings.embedded_database
    assert not settings.embedded_store
    assert (settings.local_model, settings.encoder_threads, settings.outage_budget) == ("stub:5", 3, 7.5)
    assert (settings.ray_address, settings.config_file) == ("ray-head:6379", Path("/etc/rowbeam.toml"))
    assert (settings.http_host, settings.http_port) == ("10.0.0.7", 8080)
    assert settings.serve_config == Path("/etc/serve.yaml")
    assert settings.erasure_retention_hours == 48
    assert (gateway.url, gateway.model, gateway.dimensions) == (
        "https://gateway/v1",
        "text-embedding-3-large",
        256,
    )
    assert (gateway.max_inputs, gateway.max_request_tokens, gateway.chunk_tokens) == (16, 8000, 500)
    assert (gateway.requests_per_minute, gateway.tokens_per_minute) == (3000, 1_000_000)
    assert (gateway.price_per_million, gateway.timeout, gateway.outage_budget) == (0.13, 9, 11)


def test_an_empty_variable_is_an_unset_one() -> None:
    assert Settings.from_env(dict.fromkeys(FULL, "")) == Settings.from_env({})


def test_a_child_reads_back_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWBEAM_QDRANT_URL", "http://left-over:6333")
    monkeypatch.setenv("UNRELATED", "kept")
    for environ in ({"ROWBEAM_HOME": "/srv/rowbeam"}, FULL):
        settings = Settings.from_env(environ)
        child = child_environment(settings)
        assert Settings.from_env(child) == settings
        assert child["UNRELATED"] == "kept"


def test_secrets_never_show() -> None:
    settings = Settings.from_env({**FULL, "ROWBEAM_CONFIG": ""})
    for shown in (repr(settings), str(settings), settings.model_dump_json(), settings.fingerprint()):
        assert SECRET not in shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROWBEAM_ENCODER_THREADS", "many"),
        ("ROWBEAM_ENCODER_THREADS", "0"),
        ("ROWBEAM_OUTAGE_BUDGET", "-1"),
        ("ROWBEAM_ERASURE_RETENTION_HOURS", "23"),
        ("ROWBEAM_GATEWAY_DIMENSIONS", "0"),
        ("ROWBEAM_GATEWAY_MAX_INPUTS", "2049"),
        ("ROWBEAM_GATEWAY_PRICE_PER_MILLION", "-0.1"),
        ("ROWBEAM_GATEWAY_TIMEOUT", "0"),
        ("ROWBEAM_GATEWAY_OUTAGE_BUDGET", "soon"),
        ("ROWBEAM_ADMIN_KEY", "hunter2-very"),
    ],
)
def test_a_wrong_value_is_named_by_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({**FULL, name: value})
    assert f"{name}:" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@given(st.sampled_from(sorted(FULL)), st.text(min_size=1))
@example("ROWBEAM_LOCAL_MODEL", "m" * 5_000)  # longer than a file's name may be
def test_any_value_parses_or_is_a_config_error(name: str, value: str) -> None:
    try:
        shown = repr(Settings.from_env({**FULL, name: value}))
    except ConfigError as error:
        shown = str(error)
    assert SECRET not in shown


@pytest.mark.parametrize("name", [name for name in FULL if name.startswith("ROWBEAM_GATEWAY_")])
def test_gateway_settings_need_its_url(name: str) -> None:
    if name == "ROWBEAM_GATEWAY_URL":
        assert Settings.from_env({name: FULL[name]}).gateway == GatewaySettings(url=FULL[name])
        return
    with pytest.raises(ConfigError, match=f"{name} is set but ROWBEAM_GATEWAY_URL is not") as caught:
        Settings.from_env({name: FULL[name]})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "ROWBEAM_HOME",
        "ROWBEAM_DATABASE_URL",
        "ROWBEAM_SOURCE_URL",
        "ROWBEAM_QDRANT_URL",
        "ROWBEAM_QDRANT_API_KEY",
        "ROWBEAM_LOCAL_MODEL",
        "ROWBEAM_GATEWAY_URL",
        "ROWBEAM_GATEWAY_API_KEY",
        "ROWBEAM_GATEWAY_MODEL",
    ],
)
def test_the_fingerprint_changes_with_where_data_goes(name: str) -> None:
    full = {key: value for key, value in FULL.items() if key != "ROWBEAM_CONFIG"}
    first, second = Settings.from_env(full), Settings.from_env({**full, name: full[name] + "x"})
    assert first.fingerprint() != second.fingerprint()
    assert first.fingerprint() == Settings.from_env(full).fingerprint()


def test_the_fingerprint_changes_with_the_table_specs(tmp_path: Path) -> None:
    config = tmp_path / "tables.toml"
    config.write_text("")
    settings = Settings(home=tmp_path, config_file=config)
    first = settings.fingerprint()
    config.write_text("[tables.issues]\npriority = 3\n")
    assert settings.fingerprint() != first


def test_a_config_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml cannot be read"):
        Settings(home=tmp_path, config_file=tmp_path / "absent.toml").fingerprint()


def test_the_config_file_of_home_is_used_when_it_is_there(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert settings.catalog_file is None
    (tmp_path / "rowbeam.toml").write_text("")
    assert settings.catalog_file == tmp_path / "rowbeam.toml"
    named = settings.model_copy(update={"config_file": tmp_path / "other.toml"})
    assert named.catalog_file == tmp_path / "other.toml"


def test_settings_cannot_be_changed() -> None:
    settings = Settings.from_env({})
    with pytest.raises(ValueError, match="frozen"):
        settings.home = Path("/elsewhere")  # type: ignore[misc]
