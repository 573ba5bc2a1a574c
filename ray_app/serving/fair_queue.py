"""Texts that wait, and whose turn it is. Pure.

Among tenants: deficit round robin in tokens, after M. Shreedhar and G. Varghese, "Efficient fair
queueing using deficit round robin" (1995). Among one tenant's calls: in rounds, a quantum of each call's
tokens in each, so that a search does not wait for the thousand rows sent just before it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final, TypeAlias
from uuid import UUID

from ray_app.encoders.batching import BatchBudget
from ray_app.serving.pending import PendingCall, WaitingText

#: Tokens of one turn: about one text of a small model at its longest.
QUANTUM: Final = 256

#: Round, order of arrival, text. A text that several calls wait for has a place for each.
_Place: TypeAlias = tuple[int, int, WaitingText]


@dataclass
class _Line:
    """One tenant's texts. Equal ones wait once, at the earliest of their places."""

    texts: dict[str, WaitingText] = field(default_factory=dict)
    places: list[_Place] = field(default_factory=list)
    #: The round that is served now; a new call begins in it.
    round: int = 0
    #: Tokens it may still take in this turn.
    deficit: int = 0

    def head(self) -> WaitingText:
        """The next text; there is one. Places of texts that are gone are dropped."""
        while True:
            place, _, waiting = self.places[0]
            if self.texts.get(waiting.text) is waiting:
                self.round = place
                return waiting
            heapq.heappop(self.places)

    def tidy(self) -> None:
        """Keep places that lead nowhere from piling up while the encoder is slow and callers give up."""
        if len(self.places) > 64 + 4 * len(self.texts):
            self.places = [place for place in self.places if self.texts.get(place[2].text) is place[2]]
            heapq.heapify(self.places)


class FairQueue:
    """Waiting texts of many tenants.

    The texts of one call go longest first, so that neighbours have like lengths and a batch little
    padding. A text counts as at least ``budget.max_tokens / budget.max_texts`` tokens: a batch's texts
    have a limit too.
    """

    def __init__(self, budget: BatchBudget) -> None:
        self._budget = budget
        self._least = -(-budget.max_tokens // budget.max_texts)
        self._lines: dict[UUID, _Line] = {}
        #: Tenants with texts, the one whose turn it is first.
        self._turns: deque[UUID] = deque()
        self._arrivals = count()
        #: Tokens that wait.
        self.tokens = 0

    def push(self, call: PendingCall, tokens: Sequence[int]) -> None:
        """Let the call's texts wait. One that its tenant waits for already is encoded once for both."""
        order = sorted(enumerate(zip(call.texts, tokens, strict=True)), key=lambda item: -item[1][1])
        line = self._lines.get(call.tenant) or self._join(call.tenant)
        before = 0
        for place, (text, size) in order:
            waiting = line.texts.get(text)
            if waiting is None:
                waiting = line.texts[text] = WaitingText(text, max(size, self._least))
                self.tokens += waiting.tokens
            if call not in waiting.readers:
                entry = (line.round + before // QUANTUM, next(self._arrivals), waiting)
                heapq.heappush(line.places, entry)
                before += waiting.tokens
            waiting.readers.setdefault(call, []).append(place)

    def withdraw(self, call: PendingCall) -> None:
        """Forget what ``call`` still waits for; texts that nobody else waits for leave the queue."""
        line = self._lines.get(call.tenant)
        if line is None:
            return
        for text in set(call.texts):
            waiting = line.texts.get(text)
            if waiting is None or call not in waiting.readers:
                continue
            del waiting.readers[call]
            if not waiting.readers:
                self._remove(line, waiting)
        if line.texts:
            line.tidy()
        else:
            self._leave(call.tenant)

    def take(self) -> list[WaitingText]:
        """The next batch: at most the budget's tokens, or a single text that is larger. Removes it."""
        batch: list[WaitingText] = []
        room = self._budget.max_tokens
        while self._turns:
            tenant = self._turns[0]
            line = self._lines[tenant]
            head = line.head()
            if head.wanted:
                if batch and head.tokens > room:
                    break
                if head.tokens > line.deficit:
                    self._turns.rotate(-1)
                    self._begin_turn()
                    continue
                line.deficit -= head.tokens
                room -= head.tokens
                batch.append(head)
            self._remove(line, head)
            if not line.texts:
                self._leave(tenant)
        return batch

    def clear(self) -> list[WaitingText]:
        """Empty the queue; returns what waited."""
        waiting = [text for line in self._lines.values() for text in line.texts.values()]
        self._lines.clear()
        self._turns.clear()
        self.tokens = 0
        return waiting

    def _remove(self, line: _Line, waiting: WaitingText) -> None:
        del line.texts[waiting.text]
        self.tokens -= waiting.tokens

    def _join(self, tenant: UUID) -> _Line:
        line = self._lines[tenant] = _Line()
        self._turns.append(tenant)
        if len(self._turns) == 1:
            self._begin_turn()
        return line

    def _leave(self, tenant: UUID) -> None:
        """What is left of a turn is not saved up by a tenant that has nothing to do."""
        had_turn = self._turns[0] == tenant
        self._turns.remove(tenant)
        del self._lines[tenant]
        if had_turn and self._turns:
            self._begin_turn()

    def _begin_turn(self) -> None:
        self._lines[self._turns[0]].deficit += QUANTUM
