"""Dashboards, alert rules and the documents about them agree. Without Prometheus and Grafana."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from monitoring.dashboards.__main__ import ALL, FOLDER, text_of
from tests.support.monitoring_files import ALERTS, DASHBOARDS, PROVISIONING, ROOT, expressions, panels
from tests.support.promql import matched_labels, metrics_of

OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
#: Of a histogram, what is asked for beside its own name.
PARTS = ("_bucket", "_count", "_sum")
#: Names and labels that a selector may have and no document of ours describes.
PROMETHEUS_OWN = {"ALERTS": {"alertname", "alertstate"}, "up": {"job"}}


def documented() -> dict[str, set[str]]:
    """Every metric in the tables of the documents, with its labels."""
    rows = re.findall(r"^\| `(ray_\w+)` \| (\w+) \| [^|]*\| ([^|]*)\|", metrics_text(), re.MULTILINE)
    found = {}
    for name, kind, labels in rows:
        for part in PARTS if kind == "histogram" else ("",):
            found[name + part] = set(re.findall(r"`(\w+)`", labels)) | (
                {"le"} if part == "_bucket" else set()
            )
    return found


def metrics_text() -> str:
    return (ROOT / "docs" / "metrics.md").read_text("utf-8") + OPERATIONS


@pytest.mark.parametrize(
    ("expression", "metrics", "labels"),
    [
        ("absent(a)", {"a"}, set()),
        ('sum by (le, x) (rate(a_bucket{y=~"b|c",z!="d"}[5m])) > 1', {"a_bucket"}, {"y", "z"}),
        ("max(a) - on (x) (b offset 5m or vector(0)) unless c", {"a", "b", "c"}, set()),
    ],
)
def test_what_an_expression_asks_for_is_found(expression: str, metrics: set[str], labels: set[str]) -> None:
    assert metrics_of(expression) == metrics
    assert {label for _, label in matched_labels(expression)} == labels


def test_the_files_are_what_the_generator_writes() -> None:
    assert {dashboard.uid for dashboard in ALL} == set(DASHBOARDS)
    for dashboard in ALL:
        written = (FOLDER / f"{dashboard.uid}.json").read_text("utf-8")
        assert written == text_of(dashboard), "run python -m monitoring.dashboards"


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_and_label_asked_for_is_documented(where: str, expression: str) -> None:
    known = documented() | PROMETHEUS_OWN
    assert metrics_of(expression), where
    assert metrics_of(expression) - set(known) == set(), where
    for metric, label in matched_labels(expression):
        assert label in known[metric], f"{where}: {metric} has no label {label}"


def test_no_alert_and_no_dashboard_of_prometheus_can_name_a_tenant() -> None:
    for where, expression in expressions():
        assert not re.search(r"tenant(?!s\b|s\{)", expression), where


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_a_dashboard_is_one_that_grafana_can_load(uid: str) -> None:
    dashboard = DASHBOARDS[uid]
    assert dashboard["uid"] == uid
    assert (dashboard["title"], dashboard["schemaVersion"]) == (dashboard["title"].strip(), 39)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    assert len({panel["title"] for panel in panels(dashboard)}) == len(panels(dashboard))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_every_panel_says_what_it_shows_and_in_what_unit(uid: str) -> None:
    for panel in panels(DASHBOARDS[uid]):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert letters, panel["title"]
        assert len(letters) == len(set(letters))
        for target in panel["targets"]:
            assert ("expr" in target) != ("rawSql" in target)
            assert target["datasource"] == panel["datasource"]
            if len(panel["targets"]) > 1:
                assert target["legendFormat"] != "__auto", panel["title"]


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_data_sources_and_variables_are_there(uid: str) -> None:
    dashboard = DASHBOARDS[uid]
    sources = yaml.safe_load((PROVISIONING / "datasources" / "rowbeam.yml").read_text("utf-8"))["datasources"]
    provisioned = {source["uid"]: source["type"] for source in sources}
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    for part in [*panels(dashboard), *(it for it in variables.values() if it["type"] == "query")]:
        kind, source = part["datasource"]["type"], part["datasource"]["uid"]
        if chosen := re.fullmatch(r"\$\{(\w+)\}", source):
            assert variables[chosen[1]]["query"] == kind
        else:
            assert provisioned[source] == kind
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(dashboard)))
    assert used == set(variables), "every variable is used, and every one used is there"


def test_the_provisioned_folders_are_there_and_stand_beside_rays() -> None:
    providers = yaml.safe_load((PROVISIONING / "dashboards" / "rowbeam.yml").read_text("utf-8"))["providers"]
    paths = {provider["folder"]: provider["options"]["path"] for provider in providers}
    own = paths["Rowbeam"].replace("$ROWBEAM_MONITORING", str(ROOT / "monitoring"))
    assert Path(own) == FOLDER
    rays = {json.loads(path.read_text("utf-8"))["uid"] for path in ray_dashboards().glob("*_base.json")}
    assert rays
    assert not rays & set(DASHBOARDS)


def ray_dashboards() -> Path:
    ray = find_spec("ray")
    assert ray is not None
    assert ray.origin is not None
    return Path(ray.origin).parent / "dashboard" / "modules" / "metrics" / "dashboards"


def test_grafanas_environment_is_documented() -> None:
    files = [path.read_text("utf-8") for path in PROVISIONING.rglob("*.yml")]
    wanted = {name for text in files for name in re.findall(r"\$([A-Z_]{5,})", text)}
    assert wanted <= set(re.findall(r"`([A-Z_]+)`", OPERATIONS))


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"] == {"severity": alert["labels"]["severity"]}
    assert alert["labels"]["severity"] in ("critical", "warning")
    notes = alert["annotations"]
    assert notes["summary"].endswith(".")
    assert notes["description"].endswith(".")
    document, anchor = notes["runbook_url"].split("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / document).read_text("utf-8"), re.MULTILINE)
    assert anchor == name.lower()
    assert name in headings


def test_the_runbook_has_no_section_for_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^#+ (Rowbeam\w+)$", OPERATIONS, re.MULTILINE)) == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_a_section_says_what_to_look_at_what_to_do_and_when_it_ends(name: str) -> None:
    section = re.split(r"^#+ ", OPERATIONS.split(f" {name}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    for part in ("**Means.**", "**Look.**", "**Do.**", "**Ends**"):
        assert part in section, f"{part} of {name}"
