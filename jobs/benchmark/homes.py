"""A home of its own for a measurement, so that nothing of the user's is read or written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import text

from jobs.benchmark.texts import Document
from ray_app.app import Rowbeam
from ray_app.settings import Settings
from ray_app.stack.embedded import Stack

_INSERT: Final[Any] = text(
    "INSERT INTO pull_requests (id, client_id, title, description, status)"
    " VALUES (:id, :client, :title, :body, 'open')"
)


def home_settings(home: Path, model: str) -> Settings:
    """Settings of this environment's encoder and Qdrant server, with a database of its own in ``home``.

    The cache of converted models is the user's: converting one is no part of any measurement.
    """
    here = Settings.from_env()
    return Settings(
        home=home,
        local_model=model,
        precision=here.precision,
        encoder_threads=here.encoder_threads,
        cache_dir=here.cache,
        qdrant_url=here.qdrant_url,
        qdrant_api_key=here.qdrant_api_key,
    )


@contextmanager
def opened(model: str) -> Iterator[Rowbeam]:
    """Rowbeam in a temporary home with this ``ROWBEAM_LOCAL_MODEL``; its data is deleted at the end."""
    with _settings(model) as settings, Rowbeam.open(settings) as rowbeam:
        yield rowbeam


@contextmanager
def on_cluster(model: str) -> Iterator[tuple[Rowbeam, int]]:
    """As ``opened``, with a Ray cluster of its own that runs all the time; and its head's process id."""
    with _settings(model) as settings:
        stack = Stack(settings)
        try:
            head = stack.up(server=False).head
            if head is None or head.pid is None:
                raise RuntimeError("Ray does not run.")
            with Rowbeam.open(settings) as rowbeam:
                yield rowbeam, head.pid
        finally:
            stack.down()


@contextmanager
def _settings(model: str) -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="rowbeam-bench-", ignore_cleanup_errors=True) as home:
        yield home_settings(Path(home), model)


def insert(rowbeam: Rowbeam, documents: Sequence[Document], *, client_id: int) -> None:
    """The documents as pull requests 1, 2 … of ``client_id``."""
    rows = [
        {"id": number, "client": client_id, "title": document.title, "body": document.body}
        for number, document in enumerate(documents, 1)
    ]
    with rowbeam.workspace.ledger.begin() as connection:
        connection.execute(_INSERT, rows)
