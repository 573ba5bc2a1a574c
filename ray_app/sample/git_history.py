"""Rows for ``pull_requests`` from the history of any git repository: each commit is one row."""

from __future__ import annotations

import hashlib
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ray_app.errors import InputError

#: Commits read, newest first, and characters kept of one message: bounds on a demo's time.
MAX_COMMITS: Final = 500
MAX_BODY_CHARS: Final = 1000
#: Seconds to wait for git; a history of a million commits answers its newest few at once.
_TIMEOUT: Final = 60.0
#: Hash, author's address, author date, subject, body; NUL is the one character none of them can hold.
_FORMAT: Final = "%H%x00%ae%x00%aI%x00%s%x00%b"
_FIELDS: Final = 5
_TRAILER: Final = re.compile(r"^[A-Z][A-Za-z]*(?:-[A-Za-z]+)+: .*<[^>]*>\s*$", re.MULTILINE)
_ADDRESS: Final = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


@dataclass(frozen=True)
class GitHistory:
    """Rows with the fields of ``pull_requests``, newest first, and what there is to say about them."""

    rows: list[dict[str, Any]]
    #: Why there are no rows, or fewer than one might expect.
    note: str | None = None


def read_history(repository: Path, *, first_id: int = 1, limit: int = MAX_COMMITS) -> GitHistory:
    """The newest ``limit`` commits of the branch checked out in ``repository``.

    Authors are hashed, e-mail addresses and the trailers that hold them left out. A folder that is no
    repository, a repository without commits and a machine without git give no rows and a note.

    Raises:
        InputError: there is no such folder.
    """
    if not repository.is_dir():
        raise InputError(f"There is no folder {repository}.", hint="Name the checkout of a git repository.")
    try:
        if not _git(repository, "rev-parse", "--quiet", "--verify", "HEAD^{commit}"):
            return GitHistory([], f"{repository} has no commits yet.")
        log = _git(
            repository,
            *("-c", "log.showSignature=false", "log", "-z", "--no-color", "--no-notes", "--encoding=UTF-8"),
            *(f"--max-count={limit}", f"--format=tformat:{_FORMAT}", "HEAD", "--"),
        )
        shallow = _git(repository, "rev-parse", "--is-shallow-repository").strip() == b"true"
    except FileNotFoundError:
        return GitHistory([], "git is not installed, so no history was read.")
    except subprocess.TimeoutExpired:
        return GitHistory([], f"git did not answer within {_TIMEOUT:.0f} s, so no history was read.")
    except _GitFailed as error:
        return GitHistory([], f"{repository} gave no history: {error}")
    rows = _rows(log, repository.resolve().name, first_id)
    note = f"{repository} is a shallow clone: {len(rows)} commits are all it has."
    return GitHistory(rows, note if shallow and len(rows) < limit else None)


class _GitFailed(Exception):
    """git ended with an error; the text is the first line of what it said."""


def _git(repository: Path, *arguments: str) -> bytes:
    """What git prints; nothing for a revision that does not exist (exit status 1 of rev-parse --quiet)."""
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode not in (0, 1):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise _GitFailed(said[0] if said else f"git ended with status {done.returncode}.")
    return done.stdout


def _rows(log: bytes, name: str, first_id: int) -> list[dict[str, Any]]:
    # Old commits may hold bytes of another encoding than they say.
    fields = log.decode("utf-8", errors="replace").split("\0")
    commits = zip(*(fields[start::_FIELDS] for start in range(_FIELDS)), strict=False)
    return [
        {
            "id": first_id + place,
            "repository": name,
            "sha": sha[:12],
            "author": "u" + hashlib.sha256(author.encode()).hexdigest()[:8],
            "created_at": date or None,
            "title": _ADDRESS.sub("…", subject),
            "description": _cleaned(body),
            "status": "merged",
        }
        for place, (sha, author, date, subject, body) in enumerate(commits)
    ]


def _cleaned(body: str) -> str:
    return _ADDRESS.sub("…", _TRAILER.sub("", body)).strip()[:MAX_BODY_CHARS]
