"""A home directory of the demo's own: made anew for each run, never anybody else's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from ray_app.errors import ConfigError, ConflictError, DependencyError
from ray_app.settings import Settings
from ray_app.stack.embedded import Stack
from ray_app.stack.files import exclusive, os_errors_as, private_folder

#: Proof that a demo made the folder, and may delete it.
_MARKER: Final = ".rowbeam-demo"


@contextmanager
def demo_stack(settings: Settings, *, keep: bool) -> Iterator[Settings]:
    """Settings of a fresh, embedded, running stack in ``demo`` under the home directory.

    Servers named by the environment are left out of it: a demo must not write to a real database
    or spend money. What an earlier demo left is stopped and deleted first; what this one starts is
    stopped at the end unless ``keep``. The data stays for looking around.

    Raises:
        ConflictError: another demo runs here.
        ConfigError: the folder is there and no demo made it.
        DependencyError: the folder cannot be written, or the stack does not start.
    """
    home = settings.home / "demo"
    embedded = Settings(
        home=home,
        local_model=settings.local_model,
        precision=settings.precision,
        cache_dir=settings.cache,
        encoder_threads=settings.encoder_threads,
    )
    with os_errors_as(DependencyError, "Preparing the demo"):
        private_folder(settings.home)
    with _alone(settings.home / "demo.lock"):
        stack = Stack(embedded)
        _erase(home, stack)
        with os_errors_as(DependencyError, "Preparing the demo"):
            private_folder(home)
            (home / _MARKER).touch()
        try:
            stack.up()
            yield embedded
        finally:
            if not keep:
                stack.down()


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(exclusive(lock, wait=0.0))
        except TimeoutError:
            raise ConflictError("Another demo runs in this folder.", hint="Wait for its end.") from None
        yield


def _erase(home: Path, stack: Stack) -> None:
    if not home.exists():
        return
    if not (home / _MARKER).is_file():
        raise ConfigError(
            f"{home} is there already and no demo made it.", hint="Move it away, or set ROWBEAM_HOME."
        )
    stack.down()
    with os_errors_as(DependencyError, "Deleting the data of the last demo"):
        shutil.rmtree(home)
