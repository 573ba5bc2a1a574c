"""The console's sessions: what is accepted, what has ended, and how often a login may be tried."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.console.login_attempts import IN_ALL, PER_ADDRESS, LoginAttempts
from ray_app.console.sessions import FORM, IDLE, LONGEST, Sessions

KEY = bytes(range(32))


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(KEY, clock)


@pytest.mark.parametrize("operator", [True, False])
def test_a_cookie_is_read_back_by_whoever_has_the_key(
    sessions: Sessions, clock: Clock, operator: bool
) -> None:
    session = sessions.begin(operator=operator)
    assert sessions.read(sessions.cookie(session)) == session
    assert Sessions(KEY, clock).read(sessions.cookie(session)) == session
    assert Sessions(b"another" * 5, clock).read(sessions.cookie(session)) is None


@given(place=st.integers(0, 200), letter=st.characters(codec="utf-8"))
def test_a_changed_cookie_is_none(place: int, letter: str) -> None:
    sessions = Sessions(KEY, Clock())
    value = sessions.cookie(sessions.begin(operator=False))
    changed = value[:place] + letter + value[place + 1 :]
    assert (sessions.read(changed) is None) == (changed != value)


@given(st.text(max_size=300))
def test_no_text_is_a_cookie_by_chance(text: str) -> None:
    assert Sessions(KEY, Clock()).read(text) is None


def test_a_visitor_cannot_make_itself_an_operator(sessions: Sessions) -> None:
    visitor = sessions.begin(operator=False)
    mac = sessions.cookie(visitor).rpartition(".")[2]
    forged = sessions.cookie(replace(visitor, operator=True)).rpartition(".")[0]
    assert sessions.read(f"{forged}.{mac}") is None


def test_sessions_have_ids_of_their_own(sessions: Sessions) -> None:
    made = [sessions.begin(operator=True) for _ in range(100)]
    assert len({session.session_id for session in made}) == 100


def test_a_session_ends_when_it_is_idle(sessions: Sessions, clock: Clock) -> None:
    value = sessions.cookie(sessions.begin(operator=True))
    clock.now += IDLE - 1
    assert sessions.read(value) is not None
    clock.now += 1
    assert sessions.read(value) is None


def test_a_busy_session_ends_all_the_same(sessions: Sessions, clock: Clock) -> None:
    session = sessions.begin(operator=True)
    began = clock.now
    while (found := sessions.read(sessions.cookie(session))) is not None:
        session = sessions.renew(found) or found
        clock.now += 300
    assert LONGEST <= clock.now - began <= LONGEST + 300


def test_a_session_is_not_renewed_at_every_page(sessions: Sessions, clock: Clock) -> None:
    session = sessions.begin(operator=True)
    assert sessions.renew(session) is None
    clock.now += 120
    renewed = sessions.renew(session)
    assert renewed == replace(session, renewed=int(clock.now))


def test_a_login_form_can_be_sent_for_a_while(sessions: Sessions, clock: Clock) -> None:
    value = sessions.cookie(sessions.begin(operator=False))
    clock.now += FORM - 1
    assert sessions.read(value) is not None
    clock.now += 1
    assert sessions.read(value) is None


def test_a_session_from_the_future_is_none_but_clocks_may_differ_a_little(
    sessions: Sessions, clock: Clock
) -> None:
    value = sessions.cookie(sessions.begin(operator=True))
    clock.now -= 30
    assert sessions.read(value) is not None
    clock.now -= 60
    assert sessions.read(value) is None


def test_a_forms_token_is_that_of_its_session_alone(sessions: Sessions) -> None:
    mine, other = sessions.begin(operator=True), sessions.begin(operator=True)
    token = sessions.form_token(mine)
    assert sessions.is_form_token(mine, token)
    assert not sessions.is_form_token(other, token)
    for wrong in ("", token[:-1], token.upper(), "é" * 64):
        assert not sessions.is_form_token(mine, wrong)


def test_a_renewed_sessions_forms_stay_good(sessions: Sessions, clock: Clock) -> None:
    session = sessions.begin(operator=True)
    token = sessions.form_token(session)
    clock.now += 120
    renewed = sessions.renew(session)
    assert renewed is not None
    assert sessions.is_form_token(renewed, token)


def test_an_address_that_tries_too_often_waits_and_others_do_not() -> None:
    clock = Clock()
    attempts = LoginAttempts(clock)
    assert [attempts.enter("a") for _ in range(PER_ADDRESS)] == [0.0] * PER_ADDRESS
    wait = attempts.enter("a")
    assert 0 < wait <= 60 / PER_ADDRESS
    assert attempts.enter("b") == 0
    clock.now += wait + 0.001
    assert attempts.enter("a") == 0
    assert attempts.enter("a") > 0


def test_many_addresses_together_are_bounded_too() -> None:
    attempts = LoginAttempts(Clock())
    waits = [attempts.enter(f"10.0.0.{number}") for number in range(IN_ALL + 5)]
    assert waits[:IN_ALL] == [0.0] * IN_ALL
    assert all(wait > 0 for wait in waits[IN_ALL:])
