"""Tenants attack each other over HTTP, on a real server with a real database and a real store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ray_app.backfilling import create_backfill
from ray_app.db import registry
from ray_app.settings import Settings
from ray_app.store import edge, payload
from tests.isolation.arena import NAMES, TABLE, VICTIM, Arena, LeakError
from tests.isolation.attacks import Attack, attacks
from tests.support.api_site import ApiSite

#: Attacks of one round, and rounds: what the suite is asked to try over HTTP.
ROUND = 40
ROUNDS = 90


@contextmanager
def opened(settings_: Settings) -> Iterator[Arena]:
    with ApiSite(settings_) as site, site.http() as client:
        made = Arena.filled(site, client)
        for member in made.members.values():
            tenant = site.workspace.registry.get(member.name)
            # Pending for ever: its id is what the others go after.
            member.job_id = create_backfill(site.workspace, tenant, tables=[TABLE])
        yield made


@pytest.fixture
def arena(make_settings: Callable[..., Settings]) -> Iterator[Arena]:
    with opened(make_settings()) as made:
        yield made


def storm(arena: Arena, rounds: int) -> Counter[str]:
    """Rounds of attacks by everybody but the victim; answers how many there were of each kind."""
    tally: Counter[str] = Counter()
    attackers = [name for name in NAMES if name != VICTIM]

    @settings(
        max_examples=rounds,
        database=None,
        # A round is long on purpose, and shrinking it would attack thousands of times more.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(st.tuples(st.sampled_from(attackers), attacks()), min_size=ROUND, max_size=ROUND))
    def rounds_of(battle: list[tuple[str, Attack]]) -> None:
        for name, attack in battle:
            attack.send(arena, arena.members[name])
            tally[attack.kind] += 1

    rounds_of()
    return tally


@pytest.mark.timeout(600)
def test_no_tenant_is_shown_or_changes_anything_of_another(arena: Arena) -> None:
    before = arena.view()
    tally = storm(arena, ROUNDS)
    assert arena.attempts >= ROUND * ROUNDS * 0.95, tally
    assert min(tally.values()) >= 10, tally
    # Not everything was refused, or the attacks would have tested the parser.
    assert arena.refused < arena.attempts * 0.9
    assert arena.view() == before


def test_a_tenant_made_again_under_its_old_name_is_a_stranger(arena: Arena) -> None:
    for turn in range(4):
        old = arena.members["acme-1"]
        if old.job_id:
            assert arena.send(old.key, "DELETE", f"/v1/backfills/{old.job_id}").is_success
        removed = arena.admin("DELETE", "/v1/tenants/acme-1")
        assert removed.status_code == 200, removed.text
        key = arena.site.add_tenant("acme-1", client_id=22)
        for used, status in ((old.key, 401), (key, 404)):
            answer = arena.send(used, "POST", "/v1/search", json={"text": "login", "tables": [TABLE]})
            assert answer.status_code == status, answer.text
            assert old.canary not in answer.text
        assert arena.admin("DELETE", "/v1/tenants/acme-1").is_success
        new = arena.join("acme-1", client_id=22)
        seen = arena.view("acme-1")
        assert old.canary not in str(seen), turn
        assert new.canary in str(seen)


def share_one_folder(patch: pytest.MonkeyPatch) -> None:
    """All tenants in one shard, filters without tenant, results unchecked: the store has no wall left."""

    def shared(self: Any, scope: Any, space: Any) -> Path:
        return self._shards.root / space.space_id / "00" / "shared"

    def unfiltered(where: Any, dialect: Any) -> Any:
        return dialect.all_and_none([], [])

    patch.setattr(edge.EdgeStore, "_path", shared)
    patch.setattr(edge, "translate", unfiltered)
    patch.setattr(payload, "check_tenant", lambda scope, found: None)


def believe_any_secret(patch: pytest.MonkeyPatch) -> None:
    """A key's id is enough."""
    patch.setattr(registry, "api_key_matches", lambda text, stored: True)


@pytest.mark.parametrize("take_out", [share_one_folder, believe_any_secret])
def test_the_suite_sees_a_wall_that_was_taken_out(
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    take_out: Callable[[pytest.MonkeyPatch], None],
) -> None:
    take_out(monkeypatch)
    with opened(make_settings()) as arena, pytest.raises(LeakError):
        storm(arena, 20)
