"""Locks, private files, Ray's token, and what a system error is turned into."""

from __future__ import annotations

import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ray_app.errors import DatabaseUnavailable, RayUnavailable
from ray_app.settings import Settings
from ray_app.stack.files import (
    SharedLock,
    exclusive,
    os_errors_as,
    private_folder,
    short_folder,
    write_private,
)
from ray_app.stack.ray_token import ensure_token, ray_variables, token_path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_last_holder_is_alone(tmp_path: Path) -> None:
    first, second = SharedLock(tmp_path / "use"), SharedLock(tmp_path / "use")
    assert not first.take_alone()
    first.close()
    assert second.take_alone()
    second.close()


def test_a_holder_that_is_alone_keeps_others_out(tmp_path: Path) -> None:
    alone = SharedLock(tmp_path / "use")
    assert alone.take_alone()
    with pytest.raises(BlockingIOError):
        SharedLock(tmp_path / "use")
    alone.close()
    SharedLock(tmp_path / "use").close()


def test_a_duplicate_of_the_descriptor_goes_on_holding(tmp_path: Path) -> None:
    hold = SharedLock(tmp_path / "use")
    inherited = os.dup(hold.descriptor)
    hold.close()
    newcomer = SharedLock(tmp_path / "use")
    assert not newcomer.take_alone()
    os.close(inherited)
    newcomer.close()


def test_exclusive_sections_do_not_overlap(tmp_path: Path) -> None:
    inside, overlaps = threading.Lock(), []

    def enter(_: int) -> None:
        with exclusive(tmp_path / "lock", wait=30):
            overlaps.append(not inside.acquire(blocking=False))
            inside.release()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(50)))
    assert overlaps == [False] * 50


def test_waiting_for_a_lock_ends(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path / "lock", wait=0),
        pytest.raises(TimeoutError, match="lock"),
        exclusive(tmp_path / "lock", wait=0.05),
    ):
        pytest.fail("two were inside")


def test_a_private_file_is_replaced_at_once(tmp_path: Path) -> None:
    write_private(tmp_path / "file", "old")
    opened = (tmp_path / "file").open()
    write_private(tmp_path / "file", "new")
    with opened:
        assert opened.read() == "old"
    assert (tmp_path / "file").read_text() == "new"
    assert mode_of(tmp_path / "file") == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_write_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_private(tmp_path / "folder", "text")
    assert os.listdir(tmp_path) == ["folder"]


def test_folders_are_closed_to_others(tmp_path: Path) -> None:
    assert mode_of(private_folder(tmp_path / "a" / "b")) == 0o700
    folder = short_folder("rb-")
    assert mode_of(folder) == 0o700
    folder.rmdir()


@pytest.mark.parametrize("long", [False, True])
def test_a_temporary_folder_leaves_room_for_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, long: bool
) -> None:
    if long:
        (tmp_path / ("x" * 60)).mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("x" * 60)))
    folder = short_folder("rowbeam-")
    # What Ray puts below it, with the longest process id there is.
    deepest = f"{folder}/session_2026-11-23_10-26-01_046176_4194304/sockets/plasma_store"
    folder.rmdir()
    assert len(deepest) <= 107


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.EACCES, "ROWBEAM_HOME"),
        (errno.EROFS, "ROWBEAM_HOME"),
        (errno.ENOTDIR, "file"),
        (errno.ENOSPC, "full"),
        (errno.EDQUOT, "full"),
    ],
)
def test_a_system_error_says_what_to_do(number: int, word: str) -> None:
    with (
        pytest.raises(DatabaseUnavailable) as caught,
        os_errors_as(DatabaseUnavailable, "Starting PostgreSQL"),
    ):
        raise OSError(number, os.strerror(number), "/some/where")
    assert caught.value.message == f"Starting PostgreSQL failed: {os.strerror(number)} (/some/where)."
    assert caught.value.hint is not None
    assert word in caught.value.hint


def test_the_token_is_private_random_and_kept(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "one")
    path = ensure_token(settings)
    token = path.read_text()
    assert path == token_path(settings)
    assert (mode_of(path), mode_of(path.parent)) == (0o600, 0o700)
    assert len(bytes.fromhex(token)) == 32
    assert ensure_token(settings).read_text() == token
    assert sorted(os.listdir(path.parent)) == ["lock", "ray-token"]
    assert ensure_token(Settings(home=tmp_path / "two")).read_text() != token


def test_an_empty_token_file_is_not_a_token(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    token_path(settings).parent.mkdir()
    token_path(settings).touch()
    assert len(ensure_token(settings).read_text()) == 64


def test_makers_at_once_agree_on_one_token(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda _: ensure_token(settings).read_text(), range(40)))
    assert len(tokens) == 1


def test_a_token_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(RayUnavailable, match="file is where a folder should be"):
        ensure_token(Settings(home=tmp_path / "home"))


def test_the_token_itself_is_not_in_the_environment(tmp_path: Path) -> None:
    variables = ray_variables(Settings(home=tmp_path))
    token = Path(variables["RAY_AUTH_TOKEN_PATH"]).read_text()
    assert variables["RAY_AUTH_MODE"] == "token"
    assert token not in variables.values()
