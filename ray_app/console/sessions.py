"""The console's sessions: signed values that any router can check and none has to keep."""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

#: Seconds after which a session ends that nobody has opened a page with.
IDLE: Final = 30 * 60
#: Seconds after which every session ends, however busy.
LONGEST: Final = 8 * 60 * 60
#: Seconds for which a login form can be sent.
FORM: Final = 60 * 60
#: Seconds after which opening a page renews a session: not each one needs a new cookie.
_RENEW: Final = 60
#: Seconds that two routers' clocks may differ by.
_SKEW: Final = 60
_VALUE: Final = re.compile(r"1\.([ov])\.([0-9a-f]{32})\.([0-9]{1,12})\.([0-9]{1,12})\.([0-9a-f]{64})")


@dataclass(frozen=True)
class Session:
    """An operator's session, or a visitor's, who is shown the login form. Times in seconds since 1970."""

    session_id: str
    operator: bool
    began: int
    #: When its cookie was made last.
    renewed: int


class Sessions:
    """Makes and checks sessions under one key; whoever has the key accepts what another made.

    ``clock`` counts seconds since 1970.
    """

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._clock = clock

    def begin(self, *, operator: bool) -> Session:
        """A new one, of an id of its own: none is carried over a login."""
        now = int(self._clock())
        return Session(secrets.token_hex(16), operator, now, now)

    def read(self, value: str) -> Session | None:
        """The session that ``value`` is a cookie of; None when it is forged, damaged or has ended."""
        found = _VALUE.fullmatch(value)
        if found is None or not hmac.compare_digest(found[5], self._sign(value.rpartition(".")[0])):
            return None
        session = Session(found[2], found[1] == "o", int(found[3]), int(found[4]))
        return session if self._lives(session) else None

    def renew(self, session: Session) -> Session | None:
        """The session as it goes on, when it is time for a new cookie."""
        now = int(self._clock())
        return replace(session, renewed=now) if now - session.renewed >= _RENEW else None

    def cookie(self, session: Session) -> str:
        kind = "o" if session.operator else "v"
        text = f"1.{kind}.{session.session_id}.{session.began}.{session.renewed}"
        return f"{text}.{self._sign(text)}"

    def form_token(self, session: Session) -> str:
        """What a form of this session has to send back, which a page of another site cannot know."""
        return self._sign(f"form.{session.session_id}")

    def is_form_token(self, session: Session, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.form_token(session).encode())

    def _lives(self, session: Session) -> bool:
        now = self._clock()
        if session.began > now + _SKEW or session.renewed > now + _SKEW:
            return False
        if not session.operator:
            return now - session.began < FORM
        return now - session.began < LONGEST and now - session.renewed < IDLE

    def _sign(self, text: str) -> str:
        return hmac.digest(self._key, text.encode(), "sha256").hex()
