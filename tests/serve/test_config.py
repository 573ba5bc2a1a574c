"""``serve.yaml`` and the builder, checked without a cluster."""

from __future__ import annotations

import inspect
from importlib.resources import files
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import ServeDeploySchema

from deployments import names
from deployments.app import build
from deployments.placement import HEAD, driver_cpus
from ray_app.errors import ConfigError
from ray_app.serving.options import ServingOptions
from ray_app.settings import Settings
from ray_app.stack import serving


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((files("deployments") / "serve.yaml").read_text("utf-8"))
    return parsed


def unknown_fields(written: Any, parsed: Any, path: str = "") -> list[str]:
    """Where ``written`` says something that ``parsed`` does not: Serve ignores what it does not know."""
    if isinstance(parsed, BaseModel):
        parsed = parsed.model_dump(mode="json")
    if isinstance(written, dict) and isinstance(parsed, dict):
        return [
            found
            for key, value in written.items()
            for found in (
                unknown_fields(value, parsed[key], f"{path}/{key}") if key in parsed else [f"{path}/{key}"]
            )
        ]
    if isinstance(written, list) and isinstance(parsed, list) and len(written) == len(parsed):
        pairs = enumerate(zip(written, parsed, strict=True))
        return [found for place, pair in pairs for found in unknown_fields(*pair, f"{path}/{place}")]
    return [] if written == parsed else [path]


def test_serve_understands_every_field_of_the_file(document: dict[str, Any]) -> None:
    assert unknown_fields(document, ServeDeploySchema.model_validate(document)) == []


@pytest.mark.parametrize("place", [(), ("http_options",), ("applications", 0)])
def test_a_misspelt_field_would_be_found(document: dict[str, Any], place: tuple[Any, ...]) -> None:
    spoilt = yaml.safe_load(yaml.safe_dump(document))
    inner = spoilt
    for key in place:
        inner = inner[key]
    inner["graceful_shutdown_timeout"] = 1
    try:
        parsed = ServeDeploySchema.model_validate(spoilt)
    except ValidationError:
        return
    assert unknown_fields(spoilt, parsed) != []


def test_the_file_and_rowbeam_up_speak_of_the_same_application(document: dict[str, Any]) -> None:
    (application,) = document["applications"]
    assert application["name"] == names.APPLICATION == serving._APPLICATION
    assert application["import_path"] == "deployments.app:build"
    assert names.ROUTER == serving._ROUTER
    assert document["http_options"]["host"] == "127.0.0.1"


def test_the_arguments_of_the_file_are_options(document: dict[str, Any]) -> None:
    ServingOptions.model_validate(document["applications"][0]["args"])


def test_serve_turns_arguments_into_options() -> None:
    """A string annotation, which a future import makes of it, would get the bare dictionary."""
    (parameter,) = inspect.signature(build).parameters.values()
    assert parameter.annotation is ServingOptions


@pytest.mark.parametrize(
    ("gpu", "model", "expected"), [(True, "bundled", 2), (False, "bundled", 1), (True, "stub", 1)]
)
def test_gpu_replicas_are_made_where_a_gpu_is(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, model: str, expected: int
) -> None:
    """One class in two places; there is no GPU here to start the second one on."""
    monkeypatch.setenv("ROWBEAM_LOCAL_MODEL", model)
    monkeypatch.setattr("deployments.app._cluster_has_gpu", lambda: gpu)
    application = build(ServingOptions(gpu_share=0.25, cpu_threads=3))
    _, models = application._bound_deployment.init_args
    placed = {name: bound._bound_deployment for name, bound in models.items()}
    assert len(placed) == expected
    assert placed[names.LOCAL_CPU].ray_actor_options["num_cpus"] == 3
    assert placed[names.LOCAL_CPU].init_args == (3, "cpu", model)
    if expected == 2:
        assert placed[names.LOCAL_GPU].ray_actor_options["num_gpus"] == 0.25
        assert placed[names.LOCAL_GPU].init_args[1] == "cuda"
        assert placed[names.LOCAL_GPU].func_or_class is placed[names.LOCAL_CPU].func_or_class


def test_a_second_local_model_has_replicas_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWBEAM_LOCAL_MODEL", "stub")
    monkeypatch.setenv("ROWBEAM_OTHER_MODEL", "stub@64")
    _, models = build(ServingOptions(cpu_threads=3))._bound_deployment.init_args
    placed = {name: bound._bound_deployment.init_args for name, bound in models.items()}
    assert placed == {names.LOCAL_CPU: (3, "cpu", "stub"), names.LOCAL_OTHER: (3, "cpu", "stub@64")}


SERVERS = {"ROWBEAM_DATABASE_URL": "postgresql://db/rowbeam", "ROWBEAM_QDRANT_URL": "http://qdrant:6333"}


@pytest.mark.parametrize("missing", ["ROWBEAM_DATABASE_URL", "ROWBEAM_QDRANT_URL", None])
@pytest.mark.parametrize("head_cpus", [0.0, 4.0])
def test_embedded_data_needs_a_head_with_cpus(
    monkeypatch: pytest.MonkeyPatch, missing: str | None, head_cpus: float
) -> None:
    """Serve would wait for them without a word."""
    for name, value in SERVERS.items():
        if name != missing:
            monkeypatch.setenv(name, value)
    head = {"Resources": {HEAD: 1.0, "CPU": head_cpus} if head_cpus else {HEAD: 1.0}}
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.nodes", lambda: [{"Resources": {"CPU": 8.0}}, head])
    options = ServingOptions(max_gpu_replicas=0)
    if missing is not None and not head_cpus:
        with pytest.raises(ConfigError, match=r"head.*ROWBEAM_DATABASE_URL"):
            build(options)
        return
    router = build(options)._bound_deployment
    assert (HEAD in router.ray_actor_options.get("resources", {})) == (missing is not None)


def test_drivers_of_jobs_are_on_workers_unless_data_is_on_the_head() -> None:
    assert driver_cpus(Settings.from_env(SERVERS)) > 0
    for name, value in SERVERS.items():
        assert driver_cpus(Settings.from_env({name: value})) == 0
