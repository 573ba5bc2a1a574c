"""The error tree: as drawn, and whole after a trip between processes."""

from __future__ import annotations

import pickle
import re
from decimal import Decimal

import pytest

from ray_app import errors
from ray_app.errors import (
    AuthError,
    ConfigError,
    ConflictError,
    DependencyError,
    InputError,
    IsolationViolation,
    ItemError,
    JobConflict,
    Overloaded,
    ProviderRefused,
    ProviderUnavailable,
    RateLimited,
    RowbeamError,
    SettingsMismatch,
    StoreRefused,
    UnknownTenant,
)


def everything(kind: type[RowbeamError] = RowbeamError) -> list[type[RowbeamError]]:
    """The class and those below it, of the public tree; an adapter may refine it for its own use."""
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(below for child in children for below in everything(child))]


def drawn() -> set[tuple[str, str]]:
    """(class, parent) of every line of the tree in the module's docstring."""
    path: dict[int, str] = {}
    pairs = set()
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([│├└─ ]*)([A-Z]\w+)", line)
        if match:
            depth = len(match[1]) // 4
            path[depth] = match[2]
            if depth:
                pairs.add((match[2], path[depth - 1]))
    return pairs


def make(kind: type[RowbeamError]) -> RowbeamError:
    if issubclass(kind, JobConflict):
        return kind("What happened.", job_id="job-7", hint="What to do.")
    if issubclass(kind, RateLimited | Overloaded):
        return kind("What happened.", retry_after=1.5, hint="What to do.")
    return kind("What happened.", hint="What to do.")


def test_the_drawn_tree_is_the_tree() -> None:
    pairs = {(kind.__name__, kind.__bases__[0].__name__) for kind in everything()[1:]}
    assert drawn() == pairs
    assert len(pairs) > 15


@pytest.mark.parametrize("kind", everything())
def test_errors_survive_pickling(kind: type[RowbeamError]) -> None:
    error = make(kind)
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(back) is kind
    assert str(back) == str(error) == "What happened. What to do."
    assert (back.message, back.hint, back.__dict__) == (error.message, error.hint, error.__dict__)


def test_extra_fields_survive_pickling() -> None:
    conflict = pickle.loads(pickle.dumps(JobConflict("Taken.", job_id="job-7")))  # noqa: S301
    assert conflict.job_id == "job-7"
    down = ProviderUnavailable("Down.", retry_after=2.5)
    down.tokens, down.cost = 12, Decimal("0.5")
    back = pickle.loads(pickle.dumps(down))  # noqa: S301
    assert (back.retry_after, back.tokens, back.cost) == (2.5, 12, Decimal("0.5"))


def test_a_hint_is_optional() -> None:
    assert str(ConfigError("Wrong.")) == "Wrong."


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (InputError, 400),
        (UnknownTenant, 404),
        (AuthError, 401),
        (ConflictError, 409),
        (ItemError, 422),
        (DependencyError, 503),
        (IsolationViolation, 500),
    ],
)
def test_http_statuses(kind: type[RowbeamError], status: int) -> None:
    assert kind.status == status


def test_only_what_can_come_back_is_retryable() -> None:
    final = {SettingsMismatch, StoreRefused, ProviderRefused}
    for kind in everything():
        comes_back = issubclass(kind, DependencyError | RateLimited) and kind not in final
        assert kind.retryable == comes_back, kind


@pytest.mark.parametrize("kind", everything())
def test_every_error_says_what_it_means(kind: type[RowbeamError]) -> None:
    assert kind.__doc__
    assert kind.__doc__ != (kind.__bases__[0].__doc__ or "")
