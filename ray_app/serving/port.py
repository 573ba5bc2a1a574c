"""What the server asks of whatever embeds texts, wherever that runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from ray_app.providers.port import Embedded
from ray_app.spaces import EmbeddingSpace


class Purpose(StrEnum):
    """Which of a space's prefixes goes before the texts."""

    DOCUMENT = "document"
    QUERY = "query"


class Lane(StrEnum):
    """Who waits: a caller, or a job. A job's texts never keep a caller's waiting."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


@dataclass(frozen=True)
class EmbedCall:
    """Texts of one tenant to embed. Pickled between processes."""

    space: EmbeddingSpace
    texts: Sequence[str]
    #: Tokens of each text, or a fair guess; batches and queues are measured in them.
    tokens: Sequence[int]
    #: Whose texts these are: turns are shared out by tenant, and budgets charged.
    incarnation: UUID
    purpose: Purpose = Purpose.DOCUMENT
    lane: Lane = Lane.INTERACTIVE
    #: For the usage that is recorded: the table, or "" for plain embeddings.
    table: str = ""
    #: The job that pays, or "" for online work. A job records its own usage, so a provider does not.
    job_id: str = ""
    #: The span of a trace that this call belongs to, as W3C's header has it; "" without.
    traceparent: str = ""

    @property
    def total_tokens(self) -> int:
        return sum(self.tokens)

    def part(self, start: int, stop: int) -> EmbedCall:
        """The call for texts ``start`` to ``stop`` alone."""
        return replace(self, texts=self.texts[start:stop], tokens=self.tokens[start:stop])


@dataclass(frozen=True)
class Served:
    """An answer and who gave it."""

    embedded: Embedded
    provider: str
    #: Time from the call to the answer, waiting included, in seconds.
    seconds: float


@dataclass(frozen=True)
class Load:
    """How busy a provider is."""

    #: Tokens taken in and not answered yet.
    queued_tokens: int
    #: Tokens a second, lately; 0 before the first answer.
    tokens_per_second: float

    @property
    def wait(self) -> float:
        """Seconds until what waits now is done; 0 when the speed is not known yet."""
        return self.queued_tokens / self.tokens_per_second if self.tokens_per_second else 0.0


class EmbeddingTarget(Protocol):
    """One provider as the router sees it: a local model's replicas, or the gateway proxy."""

    @property
    def name(self) -> str:
        """``local-cpu``, ``local-gpu``, ``gateway`` or ``stub``."""

    @property
    def space(self) -> EmbeddingSpace: ...

    async def embed(self, call: EmbedCall) -> Embedded:
        """The vectors of ``call.texts``, row i for text i; a text at fault is named in ``faults``.

        Raises:
            ProviderUnavailable: it is down or refuses us; another provider of the space may answer.
            Overloaded: its queue is full.
            BudgetExhausted: the tenant's cost budget does not allow the call.
        """

    async def check(self) -> None:
        """Raises ProviderUnavailable when it cannot serve now."""


class EmbeddingBackend(Protocol):
    """All providers together: picks one of the call's space, and another when that one fails."""

    def spaces(self) -> Sequence[EmbeddingSpace]:
        """The spaces that are served; the default one first."""

    async def embed(self, call: EmbedCall) -> Served:
        """Raises as ``EmbeddingTarget.embed``, when no provider of the space answered; ConfigError for
        a space that nothing here serves."""

    def load(self, space: EmbeddingSpace) -> Load:
        """How busy the providers of a space are, for admission."""

    async def not_ready(self) -> Sequence[str]:
        """What cannot serve now, in words; empty when everything can."""
