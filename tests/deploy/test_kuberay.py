"""The manifests for KubeRay, against the fields that KubeRay publishes, which are kept with the tests.

Structure, names, types and enumerations are checked, and fields that Kubernetes would drop without a word.
Rules in its expression language (``x-kubernetes-validations``) are not: nothing here evaluates them.
"""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import ray
import yaml
from jsonschema import Draft202012Validator
from ray.serve.schema import ServeDeploySchema

from ray_app.settings import Settings
from tests.serve.test_config import unknown_fields
from tests.support.deploy_files import DEPLOY, ROOT, environment_example, load_yaml
from tests.support.kuberay_schema import load_schema

KUBERAY = DEPLOY / "kuberay"
FILES = {"RayService": "rayservice.yaml", "RayJob": "rayjob.yaml"}
CLUSTER = {"RayService": "rayClusterConfig", "RayJob": "rayClusterSpec"}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


@pytest.fixture(scope="module", params=list(FILES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(strict(load_schema(kind)))


def strict(schema: Any) -> Any:
    """The schema, with fields it does not name refused, as ``kubectl --validate=strict`` does."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    return made


@pytest.fixture
def manifest(kind: str) -> dict[str, Any]:
    return load_yaml(KUBERAY / FILES[kind])


def errors(validator: Draft202012Validator, manifest: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(manifest)]


def merged(document: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386), which ``kubectl patch --type merge`` applies."""
    if not isinstance(patch, dict):
        return patch
    base = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            base.pop(name, None)
        else:
            base[name] = merged(base.get(name), value)
    return base


def pods(kind: str, manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Pod templates by group."""
    cluster = manifest["spec"][CLUSTER[kind]]
    workers = {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"], **workers}


def test_kuberay_takes_it(kind: str, manifest: dict[str, Any], validator: Draft202012Validator) -> None:
    assert manifest["apiVersion"] == "ray.io/v1"
    assert manifest["kind"] == kind
    assert errors(validator, manifest) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "rayClusterSpecs"), {}),
        (("spec", "CLUSTER", "authOptions"), {"mode": "tokens"}),
        (("spec", "CLUSTER", "headGroupSpec", "rayStartParams"), {"num-cpus": 0}),
        (("spec", "CLUSTER", "workerGroupSpecs", 0, "groupName"), None),
        (("spec", "CLUSTER", "workerGroupSpecs", 0, "template", "spec", "container"), []),
        (
            (
                "spec",
                "CLUSTER",
                "headGroupSpec",
                "template",
                "spec",
                "containers",
                0,
                "ports",
                0,
                "containerPort",
            ),
            "a",
        ),
    ],
)
def test_a_mistake_in_it_would_be_found(
    kind: str, manifest: dict[str, Any], validator: Draft202012Validator, path: tuple[Any, ...], value: Any
) -> None:
    *way, last = [CLUSTER[kind] if step == "CLUSTER" else step for step in path]
    inner: Any = manifest
    for step in way:
        inner = inner[step]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    assert errors(validator, manifest) != []


def test_the_head_takes_no_work_and_workers_are_of_two_kinds(kind: str, manifest: dict[str, Any]) -> None:
    cluster = manifest["spec"][CLUSTER[kind]]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["authOptions"] == {"mode": "token"}
    assert set(pods(kind, manifest)) == {"head", "cpu", "gpu"}
    limits = {
        name: pod["spec"]["containers"][0]["resources"]["limits"]
        for name, pod in pods(kind, manifest).items()
    }
    assert [name for name, limit in limits.items() if "nvidia.com/gpu" in limit] == ["gpu"]


def test_every_pod_has_the_same_settings_and_no_secret_in_the_file(
    kind: str, manifest: dict[str, Any]
) -> None:
    """Ray workers and drivers with other settings refuse to work together."""
    seen = [
        (container["env"], container["envFrom"])
        for pod in pods(kind, manifest).values()
        for container in pod["spec"]["containers"]
    ]
    assert seen.count(seen[0]) == len(seen) == 3
    given = {item["name"]: item["value"] for item in seen[0][0]}
    secret = {name: value for name, value in environment_example().items() if name.startswith("ROWBEAM_")}
    settings = Settings.from_env({**secret, **given})
    assert str(settings.home) in {
        mount["mountPath"]
        for pod in pods(kind, manifest).values()
        for mount in pod["spec"]["containers"][0]["volumeMounts"]
    }
    assert not {"ROWBEAM_DATABASE_URL", "ROWBEAM_ADMIN_KEY", "ROWBEAM_QDRANT_API_KEY"} & set(given)


def test_pods_run_as_nobody_special(kind: str, manifest: dict[str, Any]) -> None:
    for name, pod in pods(kind, manifest).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        # A user by name, as the image has it, cannot be told from root.
        assert isinstance(spec["securityContext"]["runAsUser"], int)
        # The head's sidecar asks Kubernetes for nodes.
        assert name == "head" or spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


def test_versions_are_the_ones_tested_here(kind: str, manifest: dict[str, Any]) -> None:
    assert manifest["spec"][CLUSTER[kind]]["rayVersion"] == ray.__version__
    images = {
        pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in pods(kind, manifest).values()
    }
    assert images == {VERSION, f"{VERSION}-gpu"}


def test_the_service_deploys_the_server_of_a_cluster() -> None:
    manifest = load_yaml(KUBERAY / FILES["RayService"])
    config = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    assert unknown_fields(config, ServeDeploySchema.model_validate(config)) == []
    assert config == load_yaml(DEPLOY / "serve.yaml")
    threads = config["applications"][0]["args"]["cpu_threads"]
    cpus = pods("RayService", manifest)["cpu"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]
    assert threads <= int(cpus)


def test_the_job_is_a_backfill_that_may_be_tried_again() -> None:
    from jobs.backfill import parse_args

    spec = load_yaml(KUBERAY / FILES["RayJob"])["spec"]
    python, flag, module, *arguments = spec["entrypoint"].split()
    assert (python, flag, module) == ("python", "-m", "jobs.backfill")
    assert parse_args(arguments).tenant
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"]


@pytest.mark.parametrize("kind", ["RayService"], indirect=True, scope="module")
def test_a_head_that_finds_its_cluster_again(
    kind: str, manifest: dict[str, Any], validator: Draft202012Validator
) -> None:
    patched = merged(manifest, load_yaml(KUBERAY / "gcs-fault-tolerance.yaml"))
    assert errors(validator, patched) == []
    asked = patched["spec"][CLUSTER[kind]]["gcsFaultToleranceOptions"]
    assert "valueFrom" in asked["redisPassword"], "no password in the file"
    example = environment_example(with_commented=True)
    assert asked["redisAddress"] == example["RAY_REDIS_ADDRESS"], "as on machines"
    assert asked["externalStorageNamespace"] == example["RAY_external_storage_namespace"]
    assert {
        **patched,
        "spec": {**patched["spec"], CLUSTER[kind]: manifest["spec"][CLUSTER[kind]]},
    } == manifest


def test_the_network_policy_is_about_these_pods_and_opens_no_more_than_it_says(
    kind: str, manifest: dict[str, Any]
) -> None:
    policy = load_yaml(KUBERAY / "networkpolicy.yaml")["spec"]
    chosen = policy["podSelector"]["matchLabels"]
    for pod in pods(kind, manifest).values():
        assert chosen.items() <= pod["metadata"]["labels"].items()
    everything = [rule for rule in policy["ingress"] if "ports" not in rule]
    assert everything == [{"from": [{"podSelector": {"matchLabels": chosen}}]}], (
        "every port: to each other alone"
    )
    opened = {port["port"] for rule in policy["ingress"] for port in rule.get("ports", [])}
    assert opened == {8000, 8080, 8265, 52365}
