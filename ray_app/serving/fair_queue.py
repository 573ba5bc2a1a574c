"""Texts that wait, and whose turn it is: deficit round robin among tenants, in tokens. Pure.

After M. Shreedhar and G. Varghese, "Efficient fair queueing using deficit round robin" (1995).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from ray_app.encoders.batching import BatchBudget
from ray_app.serving.pending import PendingCall, WaitingText

#: Tokens a tenant may take in one turn: about one text of a small model at its longest.
_QUANTUM: Final = 256


@dataclass
class _Line:
    """One tenant's texts, in the order they came. Equal texts wait once."""

    texts: OrderedDict[str, WaitingText] = field(default_factory=OrderedDict)
    #: Tokens it may still take in this turn.
    deficit: int = 0


class FairQueue:
    """Waiting texts of many tenants.

    A tenant's calls are served in the order they came and the texts of one call longest first, so
    that neighbours have like lengths and a batch little padding. A text is counted as at least
    ``least`` tokens: a batch's texts have a limit too.
    """

    def __init__(self, budget: BatchBudget) -> None:
        self._budget = budget
        self._least = -(-budget.max_tokens // budget.max_texts)
        self._lines: dict[UUID, _Line] = {}
        #: Tenants with texts, the one whose turn it is first.
        self._turns: deque[UUID] = deque()
        #: Tokens that wait.
        self.tokens = 0

    def push(self, call: PendingCall, tokens: Sequence[int]) -> None:
        """Let the call's texts wait. One that its tenant waits for already is not queued again."""
        line = self._lines.get(call.tenant) or self._join(call.tenant)
        for place in sorted(range(len(call.texts)), key=lambda place: -tokens[place]):
            text = call.texts[place]
            waiting = line.texts.get(text)
            if waiting is None:
                waiting = line.texts[text] = WaitingText(text, max(tokens[place], self._least))
                self.tokens += waiting.tokens
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
                del line.texts[text]
                self.tokens -= waiting.tokens
        if not line.texts:
            self._leave(call.tenant)

    def take(self) -> list[WaitingText]:
        """The next batch: at most the budget's tokens, or a single text that is larger. Removes it."""
        batch: list[WaitingText] = []
        room = self._budget.max_tokens
        while self._turns:
            tenant = self._turns[0]
            line = self._lines[tenant]
            head = next(iter(line.texts.values()))
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
            line.texts.popitem(last=False)
            self.tokens -= head.tokens
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
        self._lines[self._turns[0]].deficit += _QUANTUM
