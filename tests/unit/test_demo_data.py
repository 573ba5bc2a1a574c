"""The demo's rows: the same every time, fitting together, and different enough to search among."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.errors import InputError
from ray_app.sample.companies import COMPANIES, load_company
from ray_app.sample.demo_data import demo_tables
from ray_app.sample.git_history import read_history
from ray_app.sample.grammar import Grammar
from ray_app.sample.schema import metadata
from ray_app.spaces import VectorType
from ray_app.tables import PLATFORM_TABLES, TableCatalog
from ray_app.text import render

Tables = dict[str, list[dict[str, Any]]]


@pytest.fixture(params=COMPANIES)
def tables(request: pytest.FixtureRequest) -> Tables:
    return demo_tables(load_company(request.param), first_id=1000)


def text_of(table: str, row: dict[str, Any]) -> str | None:
    return render(PLATFORM_TABLES[table].text_rule(VectorType.CONTENT), row)


def test_all_vector_enabled_tables_have_rows_that_fit_their_columns(tables: Tables) -> None:
    assert set(tables) == {spec.name for spec in TableCatalog().select()}
    for name, rows in tables.items():
        columns = {column.name for column in metadata.tables[f"public.{name}"].c}
        assert rows
        assert all(set(row) <= columns for row in rows), name
        assert len({row["id"] for row in rows}) == len(rows), name


def test_another_process_draws_the_same_rows(tables: Tables) -> None:
    """Hash seeds differ between processes; the rows must not."""
    program = (
        "import json, sys; from ray_app.sample.companies import COMPANIES, load_company;"
        "from ray_app.sample.demo_data import demo_tables;"
        "json.dump([demo_tables(load_company(name), first_id=1000) for name in COMPANIES], sys.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
    assert tables in json.loads(done.stdout)


def test_another_seed_draws_other_rows_and_first_id_moves_ids_only(tables: Tables) -> None:
    company = load_company("bank")
    assert demo_tables(company, seed=1) != demo_tables(company, seed=2)
    low, high = demo_tables(company, first_id=1), demo_tables(company, first_id=50_001)
    assert [row["summary"] for row in low["issues"]] == [row["summary"] for row in high["issues"]]
    assert not {row["id"] for row in low["issues"]} & {row["id"] for row in high["issues"]}


def test_every_reference_leads_to_a_row(tables: Tables) -> None:
    projects = {row["id"] for row in tables["projects"]}
    repositories = {row["full_name"]: row for row in tables["repositories"]}
    people = {row["login"] for row in tables["users"]}
    pull_requests = {row["id"] for row in tables["pull_requests"]}
    issues = {row["key"]: row for row in tables["issues"]}
    assert {row["project_id"] for row in tables["repositories"] + tables["issues"]} <= projects
    assert {row["repository"] for row in tables["pull_requests"]} <= set(repositories)
    discussion = tables["pull_request_comments"] + tables["pull_request_reviews"]
    assert {row["pull_request_id"] for row in discussion} <= pull_requests
    assert {row["author"] for row in discussion + tables["pull_requests"]} <= people
    assert {row["assignee"] for row in tables["issues"]} <= people
    closing = [row for row in tables["pull_requests"] if "Closes " in row["description"]]
    assert len(closing) > 250
    for row in closing:
        issue = issues[row["description"].rpartition("Closes ")[2].rstrip(".")]
        assert issue["project_id"] == repositories[row["repository"]]["project_id"]
    assert all(str(UUID(row["id"])) == row["id"] for row in tables["pull_request_reviews"])


def test_texts_differ_and_are_finished_sentences(tables: Tables) -> None:
    for name, rows in tables.items():
        texts = [text for row in rows if (text := text_of(name, row))]
        assert len(set(texts)) >= 0.9 * len(texts), name
        assert not any("{" in text or "}" in text or "  " in text or "\x00" in text for text in texts), name
    words = {word for row in tables["issues"] for word in row["summary"].lower().split()}
    assert len(words) > 300


def test_some_rows_are_inactive_or_without_text_as_in_real_tables(tables: Tables) -> None:
    everything = [row for rows in tables.values() for row in rows]
    inactive = sum(not row["active"] for row in everything)
    assert 0.005 < inactive / len(everything) < 0.05
    silent = [row for row in tables["pull_request_reviews"] if row["content"] is None]
    assert 20 < len(silent) < 110


def test_the_companies_speak_of_different_things() -> None:
    bank, logistics = (
        {row["summary"] for row in demo_tables(load_company(name))["issues"]} for name in COMPANIES
    )
    assert not bank & logistics


@given(st.integers())
def test_every_slot_of_every_rule_is_filled(seed: int) -> None:
    bound = {"service": "s", "other_service": "o", "entity": "e", "area": "a", "wish": "w"}
    for name in COMPANIES:
        rules = load_company(name).rules
        grammar = Grammar(rules, Random(seed))  # noqa: S311
        for rule in rules:
            assert "{" not in grammar.text(rule, bound)


def test_a_name_that_is_no_rule_is_an_error() -> None:
    with pytest.raises(KeyError, match="missing"):
        Grammar({"a": ["{missing}"]}, Random(1)).text("a")  # noqa: S311


def test_an_article_fits_the_word_that_follows() -> None:
    grammar = Grammar({"a": ["a {thing} and a {other}"]}, Random(1))  # noqa: S311
    assert grammar.text("a", {"thing": "order", "other": "one-time code"}) == "an order and a one-time code"


class Repository:
    """A git repository in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
        command = ["git", "-C", str(self.folder), *who, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, check=True, timeout=60).stdout

    def commit(self, message: bytes, *options: str) -> None:
        self.git(
            *options, "commit", "--quiet", "--allow-empty", "--allow-empty-message", "-F", "-", stdin=message
        )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "shop").mkdir()
    return Repository(tmp_path / "shop")


def test_commits_become_pull_requests_newest_first_without_people(repository: Repository) -> None:
    repository.commit(b"Open the shop")
    repository.commit(
        "Sell tea ☕ to bob@example.org\n\nGreen, black.\n\nSigned-off-by: Ann <ann@example.org>\n".encode()
    )
    history = read_history(repository.folder, first_id=70)
    assert history.note is None
    assert [row["id"] for row in history.rows] == [70, 71]
    newest = history.rows[0]
    assert (newest["repository"], newest["title"]) == ("shop", "Sell tea ☕ to …")
    assert newest["description"] == "Green, black."
    assert "ann" not in json.dumps(history.rows).lower()
    assert newest["author"] == history.rows[1]["author"]
    columns = {column.name for column in metadata.tables["public.pull_requests"].c}
    assert set(newest) <= columns


def test_a_limit_keeps_the_newest(repository: Repository) -> None:
    for number in range(5):
        repository.commit(f"c{number}".encode())
    assert [row["title"] for row in read_history(repository.folder, limit=2).rows] == ["c4", "c3"]


def test_bytes_that_are_no_utf8_and_empty_messages_are_read(repository: Repository) -> None:
    repository.commit(b"caf\xe9", "-c", "i18n.commitEncoding=ISO-8859-1")
    repository.commit(b"bad ? byte")
    # git repairs what it is given, so the raw object is written by hand.
    raw = repository.git("cat-file", "commit", "HEAD").replace(b"bad ? byte", b"bad \xff byte")
    written = repository.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=raw).decode().strip()
    repository.git("update-ref", "HEAD", written)
    repository.commit(b"")
    assert [row["title"] for row in read_history(repository.folder).rows] == ["", "bad � byte", "café"]


def test_a_shallow_clone_says_so(repository: Repository, tmp_path: Path) -> None:
    for number in range(3):
        repository.commit(f"c{number}".encode())
    clone = tmp_path / "clone"
    repository.git("clone", "--quiet", "--depth=1", f"file://{repository.folder}", str(clone))
    history = read_history(clone)
    assert [row["title"] for row in history.rows] == ["c2"]
    assert history.note is not None
    assert "shallow" in history.note


def test_what_has_no_history_gives_a_note(repository: Repository, tmp_path: Path) -> None:
    empty = read_history(repository.folder)
    assert (empty.rows, empty.note) == ([], f"{repository.folder} has no commits yet.")
    plain = read_history(tmp_path)
    assert plain.rows == []
    assert "not a git repository" in str(plain.note)
    with pytest.raises(InputError, match="no folder"):
        read_history(tmp_path / "nowhere")


def test_a_machine_without_git_gives_a_note(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    history = read_history(repository.folder)
    assert (history.rows, history.note) == ([], "git is not installed, so no history was read.")
