"""Prometheus's own tool on its configuration and on the alert rules."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.prometheus import FOLDER, RULES, hurried_config, hurried_rules
from tests.support.tools import tool

TESTS = "rowbeam.rules.test.yml"


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        [tool("promtool"), *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts(folder: Path = FOLDER) -> dict[str, dict[str, object]]:
    groups = yaml.safe_load((folder / RULES).read_text("utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", RULES)
    promtool("check", "config", "prometheus.yml")


def test_every_alert_fires_when_it_should_and_not_when_it_nearly_should() -> None:
    promtool("test", "rules", TESTS)


@pytest.mark.parametrize("name", alerts())
def test_the_test_file_shows_each_alert_firing_and_close_to_it(name: str) -> None:
    tests = yaml.safe_load((FOLDER / TESTS).read_text("utf-8"))["tests"]
    fires = [
        [f'alertname="{name}"' in str(case["exp_samples"]) for case in test["promql_expr_test"]]
        for test in tests
    ]
    assert any(any(cases) and not all(cases) for cases in fires)


#: One change for each rule that makes it wrong, and that the test file must notice.
FAULTS = [
    ("sum(ray_rowbeam_isolation_violations_total) > 0", "sum(ray_rowbeam_isolation_violations_total) > 1"),
    ("(ray_rowbeam_dependency_up[1m])\n        for: 4m", "(ray_rowbeam_dependency_up[1m])\n        for: 2m"),
    ('up{job="ray"} == 0', "up == 0"),
    ("[1m])) < 3", "[1m])) < 4"),
    ("(max_over_time(ray_rowbeam_dependency_up[1m]))", "(ray_rowbeam_dependency_up)"),
    ("min by (provider)", "max by (provider)"),
    ('state=~"failing|refused"', 'state="refused"'),
    ("> 0.05", "> 0.07"),
    ('{status="5xx"}', '{status=~"[45]xx"}'),
    ('{reason!="shutting_down"}', ""),
    ('{route="/v1/search"}[5m]))) > 1', '{route="/v1/search"}[5m]))) > 3'),
    ("[5m]))) > 30", "[5m]))) > 70"),
    ("> 900", "> 1200"),
    ('{state="interrupted"}', ""),
    ("[30m])) >= 10", "[30m])) > 10"),
    ("> 21600", "> 30000"),
    ("report_failures_total[10m]", "report_failures_total[30m]"),
    ('{level="80"}[1m]))', '{level="any"}[1m]))'),
    ('expr: max(max_over_time(ray_rowbeam_budget_tenants{level="100"}[1m])) > 0', "expr: vector(0) > 0"),
]


@pytest.mark.parametrize(("right", "wrong"), FAULTS)
def test_the_test_file_notices_a_rule_that_is_wrong(right: str, wrong: str, tmp_path: Path) -> None:
    rules = (FOLDER / RULES).read_text("utf-8")
    assert right in rules
    (tmp_path / RULES).write_text(rules.replace(right, wrong), encoding="utf-8")
    found = alerts(tmp_path)
    (changed,) = [name for name, rule in alerts().items() if found[name] != rule]
    tests = yaml.safe_load((FOLDER / TESTS).read_text("utf-8"))
    tests["tests"] = [test for test in tests["tests"] if changed in test["name"]]
    (tmp_path / TESTS).write_text(yaml.safe_dump(tests), encoding="utf-8")
    done = subprocess.run(
        [tool("promtool"), "test", "rules", TESTS], cwd=tmp_path, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1, f"{wrong} goes unnoticed"


def test_hurrying_changes_waits_and_intervals_and_nothing_else(tmp_path: Path) -> None:
    rules, hurried = ((FOLDER / RULES).read_text("utf-8"), hurried_rules((FOLDER / RULES).read_text("utf-8")))
    groups, quick = yaml.safe_load(rules)["groups"], yaml.safe_load(hurried)["groups"]
    waits = [rule for group in groups for rule in group["rules"] if "for" in rule]
    assert waits
    for rule in waits:
        rule["for"] = "1s"
    assert quick == groups
    config = yaml.safe_load(
        hurried_config((FOLDER / "prometheus.yml").read_text("utf-8"), tmp_path / "t.json")
    )
    assert config["global"] == {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (discovery,) = config["scrape_configs"][0]["file_sd_configs"]
    assert discovery == {"refresh_interval": "1s", "files": [str(tmp_path / "t.json")]}
    own = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    assert own["rule_files"] == config["rule_files"] == [RULES]
    assert re.fullmatch(r"\d+s", own["global"]["scrape_interval"])
