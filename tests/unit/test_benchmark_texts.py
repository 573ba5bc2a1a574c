"""The texts that benchmarks embed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from jobs.benchmark.texts import Document, load_documents, load_texts
from ray_app.errors import InputError


def write(path: Path, *rows: Any) -> Path:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_generated_texts_are_distinct_always_the_same_and_as_long_as_commit_messages() -> None:
    texts = load_texts(None, 1500)
    assert len(set(texts)) == 1500
    assert texts == load_texts(None, 1500)
    words = [len(text.split()) for text in texts]
    assert 30 <= median(words) <= 80
    assert max(words) > 4 * median(words)


def test_a_text_is_what_rowbeam_makes_of_the_row() -> None:
    assert Document("Fix the build", "It broke.").text == "It broke.\nFix the build"
    assert Document("Fix the build", "  ").text == "Fix the build"


def test_files_are_read_packed_or_not_and_each_text_once(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", {"title": "one", "body": "x"}, {"title": "", "body": None})
    second = write(tmp_path / "b.jsonl.gz", {"title": "one", "body": "x"}, {"title": "two"})
    found = load_documents([first, second], 2)
    assert sorted(document.title for document in found) == ["one", "two"]


def test_too_few_texts_are_numbered_rather_than_repeated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *({"title": f"title {n}", "body": "same"} for n in range(3)))
    texts = load_texts([path], 10)
    assert len(set(texts)) == 10
    assert texts == load_texts([path], 10)


@pytest.mark.parametrize("content", [b"", b"{}\n", b"[1]\n", b"{\n", b"\xff\n"])
def test_a_file_without_texts_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError):
        load_documents([path], 5)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"title": "one"}\n' * 100)[:-20])
    for path in (tmp_path / "missing.jsonl", cut):
        with pytest.raises(InputError, match=path.name):
            load_documents([path], 200)
