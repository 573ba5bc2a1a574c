"""The summary counts what must not be."""

from __future__ import annotations

from tests.faults.plan import plan
from tests.faults.running import Outcome
from tests.faults.summary import summary


def test_what_must_not_be_is_added_up() -> None:
    first, second = plan(1, 2)
    exact = Outcome(first, 100, 0, 0, 0, sent=110, counted=100, resumes=1, seconds=30)
    broken = Outcome(second, 50, 1, 2, 3, sent=0, counted=0, resumes=0, seconds=30, problem="lost")
    lines = dict(line.split(maxsplit=1) for line in summary(1, [exact, broken]).splitlines())
    assert (exact.is_exact, broken.is_exact) == (True, False)
    assert (lines["runs"], lines["rows"], lines["resumed"]) == ("2", "150", "1")
    assert (lines["lost"], lines["duplicated"], lines["leaked"]) == ("1", "2", "3")
    assert lines["re-embedded"] == "10.0% of 100 texts"
    assert lines["not"] == "as wanted 1"
    assert lines["minutes"] == "1.0"
