"""The fields that KubeRay's resources have, out of the definitions that KubeRay publishes.

Those are megabytes, nearly all of it prose. What a manifest is checked against here is their structure:
names, types, enumerations and limits, each part that occurs again written once. To take it from another
release, with its folder ``helm-chart/kuberay-operator/crds``:

    python -m tests.support.kuberay_schema FOLDER RELEASE
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

from tests.support.deploy_files import load_yaml

FILE: Final = Path(__file__).with_name("kuberay_schema.json")
VERSION: Final = "v1"
_SOURCES: Final = {"RayService": "ray.io_rayservices.yaml", "RayJob": "ray.io_rayjobs.yaml"}
#: What says something about a value. Rules in Kubernetes' expression language are left out.
_KEYWORDS: Final = {
    "additionalProperties",
    "anyOf",
    "enum",
    "items",
    "maxLength",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-preserve-unknown-fields",
}
#: Characters of a part that is worth a definition of its own.
_LARGE: Final = 200


def load_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of a kind, with references to ``$defs``."""
    document = json.loads(FILE.read_text(encoding="utf-8"))
    return {"$defs": document["$defs"], **document["kinds"][kind]}


def structure(schema: Any) -> Any:
    """A schema without what says nothing about values."""
    if isinstance(schema, list):
        return [structure(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {word: structure(value) for word, value in schema.items() if word in _KEYWORDS - {"properties"}}
    if "properties" in schema:
        made["properties"] = {name: structure(part) for name, part in schema["properties"].items()}
    return made


def with_definitions(kinds: dict[str, Any]) -> dict[str, Any]:
    """The document of all kinds; large parts that recur are in ``$defs``, by a field's name."""
    seen: Counter[str] = Counter()

    def count(part: Any) -> None:
        if isinstance(part, dict):
            seen[_text(part)] += 1
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            count(inner)

    count(kinds)
    names: dict[str, str] = {}
    definitions: dict[str, Any] = {}
    used: Counter[str] = Counter()

    def written(part: Any, field: str) -> Any:
        if isinstance(part, list):
            return [written(item, field) for item in part]
        if not isinstance(part, dict):
            return part
        text = _text(part)
        if "type" not in part or len(text) < _LARGE or seen[text] == 1:
            return inside(part, field)
        if text not in names:
            used[field] += 1
            names[text] = field if used[field] == 1 else f"{field}-{used[field]}"
            definitions[names[text]] = inside(part, field)
        return {"$ref": f"#/$defs/{names[text]}"}

    def inside(part: dict[str, Any], field: str) -> dict[str, Any]:
        return {
            word: {name: written(value, name) for name, value in inner.items()}
            if word == "properties"
            else written(inner, field)
            for word, inner in part.items()
        }

    made = {kind: written(schema, kind) for kind, schema in kinds.items()}
    return {"$defs": definitions, "kinds": made}


def _text(part: Any) -> str:
    return json.dumps(part, sort_keys=True)


def main(folder: str, release: str) -> None:
    """Write the file from the published definitions of a release."""
    kinds = {}
    for kind, name in _SOURCES.items():
        definition = load_yaml(Path(folder) / name)
        (version,) = [item for item in definition["spec"]["versions"] if item["name"] == VERSION]
        kinds[kind] = structure(version["schema"]["openAPIV3Schema"])
    document = with_definitions(kinds)
    source = f"The fields of KubeRay {release}'s resources (github.com/ray-project/kuberay, Apache-2.0)."
    blocks = [f'"source": {json.dumps(source)}']
    for name, parts in document.items():
        lines = ",\n".join(f"  {json.dumps(part)}: {_text(parts[part])}" for part in sorted(parts))
        blocks.append(f'"{name}": {{\n{lines}\n}}')
    FILE.write_text("{\n" + ",\n".join(blocks) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
