"""Table specs: the shipped ones, and what a config file may change."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.errors import ConfigError, UnknownTable, UnknownVectorType
from ray_app.spaces import VectorType
from ray_app.tables import (
    PLATFORM_TABLES,
    UNKNOWN_PRIORITY,
    TableCatalog,
    TableSpec,
    TextMode,
    TextRule,
    load_catalog,
    parse_vector_types,
)

PRIORITIES = {
    "issues": 10,
    "pull_requests": 10,
    "projects": 9,
    "repositories": 9,
    "pull_request_comments": 7,
    "pull_request_reviews": 7,
    "users": 6,
    "issue_changelogs": 6,
    "statuses": 4,
    "issuetypes": 4,
    "workflows": 3,
    "system_settings": 2,
    "dora_market_benchmarks": 1,
    "dora_metric_insights": 1,
}


def catalog_of(tmp_path: Path, toml: str) -> TableCatalog:
    file = tmp_path / "rowbeam.toml"
    file.write_text(toml, encoding="utf-8")
    return load_catalog(file)


def test_the_shipped_tables_and_their_priorities() -> None:
    assert {name: spec.priority for name, spec in PLATFORM_TABLES.items()} == PRIORITIES
    assert [spec.name for spec in PLATFORM_TABLES.values()] == list(PRIORITIES)
    assert TableSpec("new").priority == UNKNOWN_PRIORITY == 5


def test_a_backfill_takes_the_first_seven_in_priority_order() -> None:
    assert [spec.name for spec in TableCatalog().select()] == list(PRIORITIES)[:7]


@given(st.lists(st.sampled_from(list(PRIORITIES)), max_size=20))
def test_named_tables_come_once_each_highest_priority_first(names: list[str]) -> None:
    chosen = [spec.name for spec in TableCatalog().select(names)]
    assert sorted(chosen) == sorted(set(names))
    order = list(PRIORITIES)
    assert chosen == sorted(chosen, key=lambda name: (-PRIORITIES[name], order.index(name)))


def test_an_unknown_table_is_named_with_what_is_known() -> None:
    with pytest.raises(UnknownTable, match="issues") as caught:
        TableCatalog().select(["isues"])
    assert "isues" in str(caught.value)


def test_text_rules() -> None:
    catalog = TableCatalog()
    assert catalog.get("issues").text_rule(VectorType.CONTENT).columns == (
        "summary",
        "description",
        "title",
        "content",
    )
    assert catalog.get("users").text_rule(VectorType.CONTENT).columns[0] == "name"
    bare = TableSpec("bare", text={})
    with pytest.raises(UnknownVectorType, match="bare has no text rule for vector type metadata"):
        bare.text_rule(VectorType.METADATA)


def test_no_config_file_means_the_shipped_specs() -> None:
    assert list(load_catalog(None)) == list(PLATFORM_TABLES.values())


def test_a_file_adds_a_table_with_defaults(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, '[tables.invoices]\nprimary_key = "number"\nactive_column = ""\n')
    spec = catalog.get("invoices")
    assert (spec.primary_key, spec.active_column, spec.priority) == ("number", None, UNKNOWN_PRIORITY)
    # Enabled, and ranked among the shipped ones.
    names = [chosen.name for chosen in catalog.select()]
    assert names == [*list(PRIORITIES)[:7], "invoices"]


def test_a_file_changes_only_what_it_names(tmp_path: Path) -> None:
    toml = """
[tables.issues]
priority = 1
payload = ["status"]
vector_types = ["content", "metadata"]
[tables.issues.text.metadata]
columns = ["team"]
mode = "fields"
[tables.users]
vector_enabled = false
"""
    catalog = catalog_of(tmp_path, toml)
    changed, shipped = catalog.get("issues"), PLATFORM_TABLES["issues"]
    assert (changed.priority, changed.payload) == (1, ("status",))
    assert changed.vector_types == (VectorType.CONTENT, VectorType.METADATA)
    assert changed.text_rule(VectorType.METADATA) == TextRule(TextMode.FIELDS, ("team",))
    assert changed.text_rule(VectorType.CONTENT) == shipped.text_rule(VectorType.CONTENT)
    assert (changed.primary_key, changed.active_column) == ("id", "active")
    assert catalog.get("projects") == PLATFORM_TABLES["projects"]
    names = [spec.name for spec in catalog.select()]
    assert "users" not in names
    assert names[-1] == "issues"


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[tables.issues", "not valid TOML"),
        ("[tables.issues]\nprimary = 'id'\n", r"tables\.issues\.primary"),
        ("[indexes]\n", "indexes"),
        ("[tables.issues]\npriority = 'high'\n", "priority"),
        ("[tables.issues]\nvector_types = ['body']\n", "vector_types"),
        ("[tables.issues]\nvector_types = []\n", "vector_types"),
        ("[tables.issues.text.body]\ncolumns = ['x']\n", "body"),
        ("[tables.issues.text.content]\ncolumns = []\n", "columns"),
        ("[tables.issues.text.content]\ncolumns = ['x']\nmode = 'zip'\n", "mode"),
    ],
)
def test_a_file_with_something_unknown_is_refused(tmp_path: Path, toml: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        catalog_of(tmp_path, toml)
    assert str(tmp_path / "rowbeam.toml") in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_catalog(tmp_path / "absent.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_catalog(binary)


def test_vector_types_are_parsed_once_each() -> None:
    assert parse_vector_types(["metadata", "content", "metadata"]) == (
        VectorType.METADATA,
        VectorType.CONTENT,
    )
    assert parse_vector_types([]) == ()


@given(st.text().filter(lambda name: name not in {"content", "summary", "metadata"}))
def test_any_other_vector_type_is_refused(name: str) -> None:
    with pytest.raises(UnknownVectorType, match="content, summary or metadata"):
        parse_vector_types(["content", name])
