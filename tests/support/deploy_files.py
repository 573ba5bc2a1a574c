"""The files under ``deploy/`` as tests read them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = DEPLOY / "systemd"
#: Where the units and ``cluster.yaml`` install the package.
VENV = "/opt/rowbeam/venv"


def load_yaml(path: Path) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return parsed


def unit_lines(name: str) -> list[tuple[str, str]]:
    """The settings of a unit, in order; a backslash at the end of a line joins it with the next."""
    text = (UNITS / f"{name}.service").read_text(encoding="utf-8")
    text = re.sub(r"^[#;].*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("["))
    return [(name, value.strip()) for name, _, value in pairs]


def unit_setting(name: str, setting: str) -> str:
    (value,) = [value for key, value in unit_lines(name) if key == setting]
    return value


def unit_command(name: str, variables: Mapping[str, str] | None = None) -> list[str]:
    """``ExecStart`` as systemd would run it; a variable that is not set becomes an empty text."""
    words = shlex.split(unit_setting(name, "ExecStart"))
    return [re.sub(r"\$\{(\w+)\}", lambda found: (variables or {}).get(found[1], ""), word) for word in words]


def shell_ray_start(command: str) -> list[str]:
    """The words of the ``ray start`` at the end of a shell command."""
    words = shlex.split(command.rpartition(";")[2])
    assert words[:2] == [f"{VENV}/bin/ray", "start"]
    return words


def options(command: list[str]) -> dict[str, str]:
    """The options of a command, by name; a bare one has no value."""
    return {name: value for name, _, value in (word.partition("=") for word in command if word[:2] == "--")}


def ports(command: list[str]) -> dict[str, int]:
    """The ports that a ``ray start`` names, by option."""
    return {name: int(value) for name, value in options(command).items() if name.endswith("port")}


def environment_example(*, with_commented: bool = False) -> dict[str, str]:
    """The variables of ``deploy/rowbeam.env.example``; those commented out too when asked."""
    text = (DEPLOY / "rowbeam.env.example").read_text(encoding="utf-8")
    pattern = r"^#?([A-Za-z]\w+)=(.*)$" if with_commented else r"^([A-Za-z]\w+)=(.*)$"
    return dict(re.findall(pattern, text, flags=re.MULTILINE))
