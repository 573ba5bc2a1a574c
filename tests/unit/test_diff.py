"""What a row needs, given what the ledger knows of it."""

from __future__ import annotations

from typing import Any

import pytest

from ray_app.db.source import SourceRow
from ray_app.diff import Comparer, Diff, LedgerEntry
from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import DataChange
from ray_app.tables import TextMode, TextRule
from ray_app.text import content_hash, data_hash

SPACE = EmbeddingSpace("m", "1", 8)
COMPARER = Comparer(TextRule(TextMode.JOIN, ("title",)), ("status",), SPACE, "words")
OPEN, CLOSED = data_hash({"status": "open"}), data_hash({"status": "closed"})


def digest(text: str) -> str:
    return content_hash(text, SPACE, "words")


def compare(
    title: str | None, status: str | None, entry: LedgerEntry | None = None, dead: str | None = None
) -> Diff:
    row = SourceRow("1", {"title": title, "status": status})
    return COMPARER.compare([row], {"1": entry} if entry else {}, {"1": dead} if dead else {})


def outcome(diff: Diff) -> dict[str, Any]:
    return {name: value for name, value in vars(diff).items() if value}


def test_a_row_as_the_ledger_has_it_needs_nothing() -> None:
    diff = compare("a", "open", LedgerEntry(digest("a"), OPEN, 1))
    assert outcome(diff) == {"unchanged": 1}
    assert diff.clean


@pytest.mark.parametrize("known", [OPEN, None], ids=["other columns", "chunks that disagree"])
def test_other_columns_are_a_refresh_of_an_unchanged_row(known: str | None) -> None:
    diff = compare("a", "closed", LedgerEntry(digest("a"), known, 3))
    assert outcome(diff) == {"unchanged": 1, "refreshes": [DataChange("1", 3, {"status": "closed"})]}
    assert not diff.clean
    assert diff.counts.read == diff.counts.unchanged == 1


def test_a_column_that_became_null_is_a_refresh_without_it() -> None:
    diff = compare("a", None, LedgerEntry(digest("a"), OPEN, 1))
    assert diff.refreshes == [DataChange("1", 1, {})]


@pytest.mark.parametrize("status", ["open", "closed"])
def test_another_text_is_embedded_with_its_columns_and_needs_no_refresh(status: str) -> None:
    diff = compare("b", status, LedgerEntry(digest("a"), OPEN, 2))
    (change,) = diff.changes
    assert (change.text, change.data, change.old_chunks) == ("b", {"status": status}, 2)
    assert diff.refreshes == []


def test_a_dead_record_keeps_its_former_vectors_but_not_its_former_columns() -> None:
    entry = LedgerEntry(digest("a"), OPEN, 1)
    assert outcome(compare("b", "open", entry, digest("b"))) == {"dead": 1}
    diff = compare("b", "closed", entry, digest("b"))
    assert outcome(diff) == {"dead": 1, "refreshes": [DataChange("1", 1, {"status": "closed"})]}
    assert outcome(compare("b", "closed", None, digest("b"))) == {"dead": 1}


def test_a_row_without_text_is_never_refreshed() -> None:
    assert outcome(compare(None, "closed")) == {"no_text": 1}
    assert outcome(compare(None, "closed", LedgerEntry(digest("a"), OPEN, 2))) == {"emptied": {"1": 2}}


def test_diffs_add_up() -> None:
    total = Diff()
    for status in ("open", "closed", "merged"):
        total.add(compare("a", status, LedgerEntry(digest("a"), OPEN, 1)))
    assert total.unchanged == 3
    assert [refresh.data["status"] for refresh in total.refreshes] == ["closed", "merged"]
