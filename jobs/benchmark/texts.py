"""Texts to embed: from a JSON-lines file, or generated, each once."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from itertools import count as numbers
from pathlib import Path
from random import Random
from typing import Final

from ray_app.errors import InputError
from ray_app.sample.companies import COMPANIES, load_company
from ray_app.sample.demo_data import demo_tables
from ray_app.spaces import VectorType
from ray_app.tables import PLATFORM_TABLES
from ray_app.text import render

#: Chance that a generated body goes on by one more paragraph. Commit messages have many short bodies and
#: a few long ones; with this the median text has about 70 tokens of all-MiniLM-L6-v2.
_GOES_ON: Final = 0.5
_RULE: Final = PLATFORM_TABLES["pull_requests"].text_rule(VectorType.CONTENT)


@dataclass(frozen=True)
class Document:
    """What a row of ``pull_requests`` is made of."""

    title: str
    body: str

    @property
    def text(self) -> str:
        """What Rowbeam makes of the row, so that all competitors embed the same."""
        return render(_RULE, {"title": self.title, "description": self.body}) or ""


def load_documents(paths: Sequence[Path] | None, count: int) -> list[Document]:
    """``count`` documents with different texts: of the files, or generated, always the same.

    Those of files are shuffled, since neighbours are of one project and time. Where there are too few
    they are gone through again, the titles numbered: a text that occurs twice would be embedded once.

    Raises:
        InputError: a file cannot be read, a line is no JSON object, or no line holds a text.
    """
    if not paths:
        return list(islice(_distinct(_generated()), count))
    found = list(_distinct(chain.from_iterable(map(_read, paths))))
    if not found:
        raise InputError(
            "The files given as texts hold none.", hint="Each line is a JSON object with title and body."
        )
    Random("benchmark").shuffle(found)  # noqa: S311 - a sample, no secret
    return list(islice(_repeated(found), count))


def load_texts(paths: Sequence[Path] | None, count: int) -> list[str]:
    """The texts of ``load_documents``."""
    return [document.text for document in load_documents(paths, count)]


def _distinct(documents: Iterable[Document]) -> Iterator[Document]:
    seen: set[str] = set()
    for document in documents:
        text = document.text
        if text and text not in seen:
            seen.add(text)
            yield document


def _repeated(documents: Sequence[Document]) -> Iterator[Document]:
    yield from documents
    for round_number in numbers(2):
        for document in documents:
            yield Document(f"{document.title} ({round_number})", document.body)


def _read(path: Path) -> Iterator[Document]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise InputError(f"Line {number} of {path} is no JSON object.")
                yield Document(str(row.get("title") or ""), str(row.get("body") or ""))
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON lines ({type(error).__name__}).") from error


def _generated() -> Iterator[Document]:
    """Pull requests of the sample companies, their bodies as long as commit messages are."""
    random = Random("benchmark")  # noqa: S311 - sample data, no secret
    for seed in numbers(1):
        for name in COMPANIES:
            tables = demo_tables(load_company(name), seed=seed)
            said = [str(row["content"]) for row in tables["pull_request_comments"]]
            said += [str(row["description"]) for row in tables["issues"] if row["description"]]
            for row in tables["pull_requests"]:
                paragraphs = [str(row["description"])]
                while random.random() < _GOES_ON:
                    paragraphs.append(random.choice(said))
                yield Document(str(row["title"]), "\n\n".join(filter(None, paragraphs)))
