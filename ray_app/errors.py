"""Every error Rowbeam raises on purpose, as one tree.

    RowbeamError
    ├── InputError                 the caller sent something that cannot be used
    │   ├── ConfigError            a setting or config file is wrong
    │   ├── UnknownTenant          no active tenant of that name
    │   ├── UnknownTable           no table spec, or no such table in the database
    │   ├── UnknownVectorType      not content, summary or metadata, or not configured for the table
    │   ├── UnknownJob             no job with that id
    │   ├── UnknownRecord          the tenant has no such record in its index
    │   ├── UnknownErasure         no tenant of that incarnation was removed
    │   ├── UnknownKey             the tenant has no API key with that id
    │   ├── UnknownModel           no space of that model is served here
    │   ├── TooLarge               more than one request may carry
    │   ├── TextTooLong            a text with more tokens than the model reads at once
    │   ├── InvalidTableSpec       a spec names a column the table does not have
    │   ├── InvalidRecord          a row or JSON line that cannot be loaded
    │   ├── InvalidErasureRecord   a record of an erasure that is not as it was signed
    │   └── InvalidFilter          a search filter that cannot be compiled
    ├── AuthError                  missing, wrong or revoked API key
    ├── PermissionDenied           a valid key that may not do this
    ├── LimitReached               a limit of the tenant's own is used up
    │   ├── RateLimited            for now: wait as long as it says
    │   └── BudgetExhausted        until somebody raises it: no waiting helps
    │       └── JobBudgetReached   a job's own: it stops, and can go on with a higher one
    ├── ConflictError              the request clashes with what is there
    │   ├── TenantExists           name or client id already taken
    │   ├── JobConflict            another job works on the same tenant and table
    │   ├── IndexMoved             the index is in another space by now; look again where it is
    │   │   └── TenantMoved        the tenant's vectors are in another place by now
    │   └── LostJob                another driver has taken the job over, or it has ended
    ├── ItemError                  one text is at fault; its batch goes on without it
    ├── DependencyError            something Rowbeam needs is at fault; no row is charged
    │   ├── DatabaseUnavailable    Postgres cannot be reached
    │   ├── StoreUnavailable       the vector store cannot be reached or written
    │   │   └── StoreRefused       it refuses us until somebody changes a key, a quota or a collection
    │   ├── ProviderUnavailable    the embedding provider is down or throttled
    │   │   └── ProviderRefused    it refuses us until somebody changes a key, a model or a quota
    │   ├── Overloaded             Rowbeam itself has more to do than it can in time
    │   ├── RayUnavailable         no Ray cluster, or too few free resources
    │   └── SettingsMismatch       a worker was started with other settings than the driver
    └── IsolationViolation         a result of another tenant was about to leave the store

Messages are for people: they say what happened and what to do, and hold no secret and no row text.
"""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar


class RowbeamError(Exception):
    """Base class; catch it to catch everything Rowbeam raises on purpose."""

    #: The HTTP status an API answers with.
    status: ClassVar[int] = 500
    #: Whether the same call may succeed later with nothing changed by the caller.
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling, and errors cross Ray processes.
        return (_rebuild, (type(self), self.message, self.hint, self.__dict__))


def _rebuild(
    kind: type[RowbeamError], message: str, hint: str | None, state: dict[str, object]
) -> RowbeamError:
    error = kind.__new__(kind)
    RowbeamError.__init__(error, message, hint=hint)
    error.__dict__.update(state)
    return error


class InputError(RowbeamError):
    """The caller sent something that cannot be used; ``param`` names the part at fault, as the API does."""

    status = 400

    def __init__(self, message: str, *, hint: str | None = None, param: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.param = param


class ConfigError(InputError):
    """A setting or the config file is wrong."""


class UnknownTenant(InputError):
    """No active tenant has that name."""

    status = 404


class UnknownTable(InputError):
    """No table spec has that name, or the database has no such table."""

    status = 404


class UnknownVectorType(InputError):
    """The vector type does not exist, or the table has no text rule for it."""


class UnknownJob(InputError):
    """No job has that id."""

    status = 404


class UnknownRecord(InputError):
    """The tenant has no vectors of that record."""

    status = 404


class UnknownKey(InputError):
    """The tenant has no API key with that id."""

    status = 404


class UnknownErasure(InputError):
    """No tenant of that incarnation was removed."""

    status = 404


class UnknownModel(InputError):
    """No embedding space of that model is served here."""

    status = 404


class TooLarge(InputError):
    """A request carries more than one request may."""

    status = 413


class TextTooLong(InputError):
    """A text to embed as it is has more tokens than the model reads at once."""


class InvalidTableSpec(InputError):
    """A table spec does not fit the table it describes."""


class InvalidRecord(InputError):
    """A row or a line of a file cannot be loaded."""


class InvalidErasureRecord(InputError):
    """A record of an erasure is not as it was signed, or by another key."""


class InvalidFilter(InputError):
    """A search filter cannot be compiled."""


class AuthError(RowbeamError):
    """The API key is missing, wrong or revoked."""

    status = 401


class PermissionDenied(RowbeamError):
    """The key is valid and may not do this."""

    status = 403


class LimitReached(RowbeamError):
    """A limit of the tenant's own is used up; other tenants are not affected."""

    status = 429


class RateLimited(LimitReached):
    """Too much at once. ``retry_after`` is the wait after which this request will be admitted, in seconds."""

    retryable = True

    def __init__(self, message: str, *, retry_after: float, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class BudgetExhausted(LimitReached):
    """The tenant's cost budget is spent; nothing more is bought until it is raised or the month ends.

    ``tokens`` and ``cost`` (US dollars) are what the refused call had spent already, as in
    ``ProviderUnavailable``.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.tokens = 0
        self.cost = Decimal(0)


class JobBudgetReached(BudgetExhausted):
    """A job's own budget does not cover its next batch; raised before anything is bought."""


class ConflictError(RowbeamError):
    """The request clashes with what is there."""

    status = 409


class TenantExists(ConflictError):
    """The tenant's name or client id is already taken."""


class JobConflict(ConflictError):
    """Another job works on the same tenant and table.

    ``job_id`` names it.
    """

    def __init__(self, message: str, *, job_id: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.job_id = job_id


class IndexMoved(ConflictError):
    """The index is in another space than a moment ago, its model having been changed: look again."""


class TenantMoved(IndexMoved):
    """The tenant's vectors are in another place than a moment ago: ask the registry for a new scope."""


class LostJob(ConflictError):
    """Another driver has taken the job over, or it has ended; this one must stop writing."""


class ItemError(RowbeamError):
    """One text is at fault: it becomes a dead letter and its batch goes on without it."""

    status = 422


class DependencyError(RowbeamError):
    """Something Rowbeam needs is at fault: back off, charge no row."""

    status = 503
    retryable = True


class DatabaseUnavailable(DependencyError):
    """Postgres cannot be reached."""


class StoreUnavailable(DependencyError):
    """The vector store cannot be reached or written."""


class StoreRefused(StoreUnavailable):
    """The vector store refuses us until somebody changes a key, a quota or a collection."""

    retryable = False


class ProviderUnavailable(DependencyError):
    """The embedding provider is down, throttles us or refuses us.

    ``retry_after`` is the wait the provider asked for, in seconds, when it did. ``tokens`` and
    ``cost`` (US dollars) are what the failed call had spent already: its vectors are gone, its bill is not.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after
        self.tokens = 0
        self.cost = Decimal(0)


class ProviderRefused(ProviderUnavailable):
    """The embedding provider refuses us until somebody changes a key, a model name or a quota."""

    retryable = False


class Overloaded(DependencyError):
    """Rowbeam has more to do than it can in time. ``retry_after`` is the wait for room, in seconds."""

    def __init__(self, message: str, *, retry_after: float, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class RayUnavailable(DependencyError):
    """No Ray cluster answers, or it has too few free resources."""


class SettingsMismatch(DependencyError):
    """A worker was started with other ``ROWBEAM_*`` settings than the driver."""

    retryable = False


class IsolationViolation(RowbeamError):
    """A point of another tenant was about to leave the store; the whole answer is dropped."""
