"""``docs/running.md`` and ``docs/observing.md``: what they show is run, or is read by what would run it."""

from __future__ import annotations

import re
import subprocess

import pytest

from ray_app.logs import IDS
from ray_app.settings import Settings
from tests.support.deploy_files import ROOT, environment_example, ports, unit_command, unit_setting
from tests.support.documents import DOCS, commands

RUNNING = (DOCS / "running.md").read_text(encoding="utf-8")
OBSERVING = (DOCS / "observing.md").read_text(encoding="utf-8")
#: Commands on one machine, which tests/acceptance runs.
ELSEWHERE = {"rowbeam up", "rowbeam doctor", "rowbeam down"}
#: Made by the commands of the document, and not committed.
MADE = {"deploy/rowbeam.env", "deploy/ray-token"}


def blocks(kind: str, text: str = RUNNING) -> list[str]:
    found: list[str] = re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found


def test_every_command_for_a_cluster_is_run_on_one() -> None:
    """``test_two_nodes`` takes them from the document."""
    shown = set(commands("running.md")) - ELSEWHERE
    assert len(shown) == 4
    assert all(command.startswith("ray ") for command in shown)


@pytest.mark.parametrize("block", blocks("bash"))
def test_what_needs_a_cloud_is_at_least_shell_and_names_files_that_are_here(block: str) -> None:
    subprocess.run(["bash", "-n", "-c", block], check=True, capture_output=True)
    named = set(re.findall(r"(?<![/\w])(?:deploy/[\w./-]+|cluster\.yaml)", block))
    assert {name for name in named if not (ROOT / name).exists()} <= MADE


def test_links_lead_somewhere() -> None:
    for text in (RUNNING, OBSERVING):
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert (DOCS / link).exists(), link


def test_the_table_of_ports_is_what_the_units_say() -> None:
    table = RUNNING.partition("### What listens where")[2].partition("\nSo among")[0]
    rows = re.findall(r"^\| ([\d, to]+) \|", table, re.MULTILINE)
    told = {int(port) for row in rows for port in re.findall(r"\d+", row)}
    head = ports(unit_command("rowbeam-head"))
    named = {int(word.partition("=")[2]) for word in unit_setting("rowbeam-head", "Environment").split()}
    assert told == {8000, *head.values(), *named}


def test_variables_are_called_what_the_example_calls_them() -> None:
    text = "".join([*blocks(""), *blocks("", OBSERVING)])
    shown = set(re.findall(r"^([A-Z]\w+)=", text, re.MULTILINE))
    assert {"RAY_REDIS_ADDRESS", "OTEL_EXPORTER_OTLP_ENDPOINT"} <= shown
    assert shown <= set(environment_example(with_commented=True))


def test_the_collector_of_the_document_is_one() -> None:
    (block,) = [block for block in blocks("", OBSERVING) if block.startswith("OTEL_")]
    name, _, value = block.strip().partition("=")
    assert Settings.from_env({name: value}).traces


def test_every_id_of_a_line_is_told() -> None:
    for name in IDS:
        assert f"`{name}`" in OBSERVING


def test_spans_are_called_what_the_code_calls_them() -> None:
    folders = ("ray_app", "deployments", "jobs")
    code = "".join(path.read_text("utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py"))
    tree = next(block for block in blocks("", OBSERVING) if "└─" in block)
    shown = [re.split(r" {2,}", line.lstrip(" │├└─"))[0] for line in tree.splitlines() if line.strip()]
    made = {"proxy POST", "router POST /v1/search", "router POST /v1/backfills", "SELECT rowbeam.indexes"}
    made |= {"embed local-cpu", "store search", "store upsert"}
    assert all(f'"{name}"' in code for name in set(shown) - made)
    assert made <= set(shown)
    for pattern in ('f"embed {', 'f"store {', 'f"{self._part} {method} {route}"'):
        assert pattern in code
