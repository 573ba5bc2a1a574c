"""Small calls of one tenant that come close together, sent as one.

A call to another process costs about as much as embedding a short text. While a call is under way, the
next small ones wait a little for company, which is no loss: they would wait at the provider as well.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ray_app.errors import ProviderUnavailable, RowbeamError
from ray_app.providers.port import Embedded
from ray_app.serving.port import EmbedCall, EmbeddingTarget, Lane
from ray_app.spaces import EmbeddingSpace

#: What counts as a small call, and what a group holds at the most.
SMALL_TEXTS: Final = 8
SMALL_TOKENS: Final = 512
GROUP_TEXTS: Final = 32
GROUP_TOKENS: Final = 2_048
#: The wait for company, as a share of what an answer took lately, and in seconds at the most.
_SHARE: Final = 0.1
LONGEST_WAIT: Final = 0.01
#: Weight of the latest answer's time in the average (exponentially weighted moving average).
_WEIGHT: Final = 0.2


@dataclass
class _Member:
    call: EmbedCall
    answer: asyncio.Future[Embedded]


@dataclass
class _Group:
    members: list[_Member] = field(default_factory=list)
    texts: int = 0
    tokens: int = 0
    timer: asyncio.TimerHandle | None = None

    def add(self, member: _Member) -> None:
        self.members.append(member)
        self.texts += len(member.call.texts)
        self.tokens += member.call.total_tokens

    def has_room(self, call: EmbedCall) -> bool:
        return self.texts + len(call.texts) <= GROUP_TEXTS and self.tokens + call.total_tokens <= GROUP_TOKENS

    @property
    def wanted(self) -> list[_Member]:
        """Those whose callers still wait."""
        return [member for member in self.members if not member.answer.done()]


class CoalescingTarget:
    """An ``EmbeddingTarget`` in front of another one that costs nothing and answers with ``counts``.

    Never are two tenants' texts in one call, so fairness between them stays the provider's business. A
    caller that gives up leaves its group; a group that all have left is given up. Used from one event
    loop.
    """

    def __init__(self, target: EmbeddingTarget) -> None:
        self._target = target
        self._groups: dict[EmbedCall, _Group] = {}
        self._under_way = 0
        self._seconds = 0.0
        #: Tasks of groups, kept from being collected.
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        return self._target.name

    @property
    def space(self) -> EmbeddingSpace:
        return self._target.space

    async def embed(self, call: EmbedCall) -> Embedded:
        """See ``EmbeddingTarget``."""
        small = len(call.texts) <= SMALL_TEXTS and call.total_tokens <= SMALL_TOKENS
        if not (self._under_way and small and call.lane is Lane.INTERACTIVE):
            return await self._timed(call)
        return await self._join(call)

    async def check(self) -> None:
        """See ``EmbeddingTarget``."""
        await self._target.check()

    async def _join(self, call: EmbedCall) -> Embedded:
        kind = replace(call, texts=(), tokens=())
        group = self._groups.get(kind)
        if group is not None and not group.has_room(call):
            self._close(kind, group)
            group = None
        loop = asyncio.get_running_loop()
        if group is None:
            group = self._groups[kind] = _Group()
            group.timer = loop.call_later(min(_SHARE * self._seconds, LONGEST_WAIT), self._close, kind, group)
        member = _Member(call, loop.create_future())
        group.add(member)
        return await member.answer

    def _close(self, kind: EmbedCall, group: _Group) -> None:
        """Send a group. It takes nobody in any more."""
        del self._groups[kind]
        if group.timer is not None:
            group.timer.cancel()
        if not group.wanted:
            return
        task = asyncio.get_running_loop().create_task(self._send(group))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        for member in group.wanted:
            member.answer.add_done_callback(lambda _: None if group.wanted else task.cancel())

    async def _send(self, group: _Group) -> None:
        members = group.wanted
        try:
            embedded = await self._timed(_joined([member.call for member in members]))
            for member, part in zip(members, _parted(embedded, members), strict=True):
                if not member.answer.done():
                    member.answer.set_result(part)
        except RowbeamError as error:
            _fail(members, error)
        finally:
            # Everybody is answered, on every path; here only when the event loop ends, or by a bug.
            _fail(members, ProviderUnavailable(f"{self.name} was given up."))

    async def _timed(self, call: EmbedCall) -> Embedded:
        self._under_way += 1
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            embedded = await self._target.embed(call)
            self._seconds += _WEIGHT * (loop.time() - began - self._seconds)
            return embedded
        finally:
            self._under_way -= 1


def _joined(calls: Sequence[EmbedCall]) -> EmbedCall:
    """One call for the texts of all, which are of one kind."""
    texts = [text for call in calls for text in call.texts]
    return replace(calls[0], texts=texts, tokens=[tokens for call in calls for tokens in call.tokens])


def _parted(embedded: Embedded, members: Sequence[_Member]) -> Iterator[Embedded]:
    """Each call's own part of an answer."""
    start = 0
    for member in members:
        stop = start + len(member.call.texts)
        counts = embedded.counts[start:stop]
        faults = {place - start: fault for place, fault in embedded.faults.items() if start <= place < stop}
        yield Embedded(embedded.vectors[start:stop], sum(counts), faults=faults, counts=counts)
        start = stop


def _fail(members: Sequence[_Member], error: RowbeamError) -> None:
    for member in members:
        if not member.answer.done():
            member.answer.set_exception(copy.copy(error))  # of its own: callers must not share a traceback
