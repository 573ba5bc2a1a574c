"""Lines of the log: their two forms, the ids in them, and what never is."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.errors import ConfigError, DatabaseUnavailable
from ray_app.logs import (
    ContextFilter,
    JsonFormatter,
    TextFormatter,
    configure_logs,
    describe,
    logging_for,
    request_id,
    wants_json,
)
from ray_app.settings import Settings

SECRET = "the quarterly ferry seal"
INCARNATION = UUID(int=7)


def line(formatter: logging.Formatter, message: str = "hello", error: BaseException | None = None) -> str:
    info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("ray_app.some", logging.INFO, __file__, 1, message, (), info)
    ContextFilter().filter(record)
    return formatter.format(record)


def raised(act: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever it raises
        act()
    return caught.value


def fail() -> None:
    try:
        int(SECRET)
    except ValueError as error:
        raise DatabaseUnavailable("Postgres is gone.") from error


def test_a_line_says_what_it_was_logged_for() -> None:
    token = request_id.set("req-1")
    try:
        with logging_for(job="job-1", incarnation=INCARNATION):
            said = json.loads(line(JsonFormatter()))
            text = line(TextFormatter())
    finally:
        request_id.reset(token)
    assert {name: said[name] for name in ("request_id", "job", "tenant")} == {
        "request_id": "req-1",
        "job": "job-1",
        "tenant": str(INCARNATION),
    }
    assert said["message"] == "hello"
    assert f"[request_id=req-1 job=job-1 tenant={INCARNATION}] hello" in text


def test_ids_that_there_are_none_of_are_left_out() -> None:
    said = json.loads(line(JsonFormatter()))
    assert not {"request_id", "job", "tenant", "trace_id", "span_id", "exception"} & set(said)
    assert {"asctime", "levelname", "message", "filename", "lineno", "process"} <= set(said), "as Ray's"
    assert "[-] hello" in line(TextFormatter())


@given(message=st.text())
def test_a_json_line_is_one_line_whatever_is_said(message: str) -> None:
    written = line(JsonFormatter(), message.replace("%", "%%"))
    assert len(written.splitlines()) == 1
    assert json.loads(written)["message"] == message.replace("%", "%%")


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_what_a_strange_exception_says_is_not_repeated(formatter: logging.Formatter) -> None:
    written = line(formatter, error=raised(fail))
    assert SECRET not in written
    assert "builtins.ValueError" in written
    assert "DatabaseUnavailable: Postgres is gone." in written, "our own words are"
    assert "test_logs.py" in written, "and where it was"


def test_exceptions_are_told_from_the_first_to_the_last() -> None:
    told = describe(raised(fail))
    assert told.index("ValueError") < told.index("DatabaseUnavailable")


def test_an_error_that_is_its_own_cause_is_told_once() -> None:
    error = ConfigError("Round and round.")
    error.__context__ = ValueError(SECRET)
    error.__context__.__context__ = error
    assert describe(error).count("Round and round.") == 1
    error.__suppress_context__ = True
    assert "ValueError" not in describe(error)


@pytest.mark.parametrize(
    ("chosen", "terminal", "expected"),
    [
        ("json", True, True),
        ("text", False, False),
        (None, True, False),
        (None, False, True),
    ],
)
def test_people_read_terminals_and_machines_read_the_rest(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, terminal: bool, expected: bool
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    settings = Settings.model_validate({"home": Path("/nowhere"), "log_format": chosen})
    assert wants_json(settings) is expected


def test_everything_goes_to_the_same_place_when_asked(capfd: pytest.CaptureFixture[str]) -> None:
    root, ours = logging.getLogger(), logging.getLogger("ray_app")
    before = list(root.handlers), ours.level
    try:
        configure_logs(Settings(home=Path("/nowhere"), log_format="json"), loggers=("",))
        ours.info("ours")
        logging.getLogger("some.library").info("chatter")
        logging.getLogger("some.library").warning("trouble")
    finally:
        root.handlers[:] = before[0]
        ours.setLevel(before[1])
    said = [json.loads(each) for each in capfd.readouterr().err.splitlines() if each.startswith("{")]
    assert [(each["logger"], each["message"]) for each in said] == [
        ("ray_app", "ours"),
        ("some.library", "trouble"),
    ]
