from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.providers.retry import Backoff, OutageClock, asked_wait, parse_duration

NOW = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)


@given(st.integers(0, 5_000), st.none() | st.floats(0, 1e6))
def test_a_wait_is_at_least_what_was_asked_and_never_above_the_longest(
    attempt: int, asked: float | None
) -> None:
    backoff = Backoff(base=0.5, cap=30, longest=60)
    wait = backoff.wait(attempt, asked)
    assert min(asked or 0.0, 60) <= wait <= 60
    if asked is None:
        assert wait <= min(30, 0.5 * 2 ** min(attempt, 10))


@pytest.mark.parametrize(("attempt", "most"), [(0, 0.5), (1, 1.0), (2, 2.0), (6, 30.0), (2_000, 30.0)])
def test_jitter_is_drawn_from_zero_to_a_doubling_bound(attempt: int, most: float) -> None:
    bounds = []

    def highest(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    assert Backoff(base=0.5, cap=30).wait(attempt, uniform=highest) == most
    assert bounds == [(0.0, most)]


def test_jitter_comes_on_top_of_what_was_asked() -> None:
    assert Backoff(base=0.5).wait(0, 2.0, uniform=lambda _, high: high) == 2.5


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after": "7"}, "", 7.0),
        ({"retry-after": "0"}, "", 0.0),
        ({"retry-after": "1.5"}, "", 1.5),
        ({"retry-after-ms": "250"}, "", 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, "", 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, "", 7.0),
        ({"retry-after": "Mon, 23 Nov 2026 10:00:30 GMT"}, "", 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 09:00:00 GMT"}, "", 0.0),
        ({"retry-after": "Mon, 23 Nov 2026 10:00:30 -0000"}, "", 30.0),
        ({"retry-after": "-3"}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "later"}, "", None),
        ({}, "Please retry after 86400 seconds. Please go here", 86400.0),
        ({}, "Rate limit reached. Please try again in 1.2s. Visit", 1.2),
        ({}, "Please try again in 6m0s.", 360.0),
        ({}, "Please try again in 120ms.", 0.12),
        ({"retry-after": "2"}, "Please retry after 9 seconds", 2.0),
        ({}, "no idea", None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30s"}, "", 90.0),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "4s",
            },
            "",
            4.0,
        ),
        ({"x-ratelimit-remaining-tokens": "17", "x-ratelimit-reset-tokens": "4s"}, "", None),
    ],
)
def test_what_an_answer_asks_for(headers: dict[str, str], message: str, seconds: float | None) -> None:
    assert asked_wait(headers, message, NOW) == (None if seconds is None else pytest.approx(seconds))


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=80))
def test_no_header_or_message_breaks_it(after: str, reset: str, message: str) -> None:
    headers = {
        "retry-after": after,
        "retry-after-ms": after,
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": reset,
    }
    for given_headers in (headers, {}, {key: value for key, value in headers.items() if key[0] == "x"}):
        wait = asked_wait(given_headers, message, NOW)
        assert wait is None or wait >= 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("6m0s", 360), ("120ms", 0.12), ("1h2m3.5s", 3723.5), ("1d", 86400), ("", None), ("5", None)],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == (None if seconds is None else pytest.approx(seconds))


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_outage_lasts_from_the_first_failure_to_the_next_success() -> None:
    time = Time()
    clock = OutageClock(10.0, time)
    assert clock.failed(started=100.0, wait=10.0)
    assert not clock.failed(started=100.0, wait=10.1)
    time.now = 109.0
    assert clock.failed(started=108.0, wait=1.0)
    assert not clock.failed(started=108.0, wait=1.1)
    clock.succeeded()
    assert clock.failed(started=108.0, wait=9.0)


def test_the_time_a_failed_request_took_counts() -> None:
    time = Time()
    clock = OutageClock(10.0, time)
    time.now = 111.0
    assert not clock.failed(started=100.0, wait=0.0)


def test_no_budget_allows_no_second_try() -> None:
    time = Time()
    clock = OutageClock(0.0, time)
    time.now = 100.1
    assert not clock.failed(started=100.0, wait=0.0)
