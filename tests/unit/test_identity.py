"""Point ids: stable for ever, and never shared by two points."""

from __future__ import annotations

from uuid import UUID

from hypothesis import assume, given
from hypothesis import strategies as st

from ray_app.identity import keyed_uuid, partition_id, point_id

SECRET = bytes(range(32))
TENANT = UUID("11111111-2222-4333-8444-555555555555")
# A small alphabet with the separators people join with, so that collisions would be found.
parts = st.lists(st.text("ab_:/\x00\x1f", max_size=4), max_size=4)


@given(parts, parts)
def test_different_parts_never_meet(first: list[str], second: list[str]) -> None:
    assume(first != second)
    assert keyed_uuid(SECRET, *first) != keyed_uuid(SECRET, *second)


@given(st.lists(st.text(), max_size=4))
def test_ids_are_well_formed_and_repeatable(names: list[str]) -> None:
    found = keyed_uuid(SECRET, *names)
    assert found == keyed_uuid(SECRET, *names)
    assert UUID(str(found)) == found
    assert found.version == 4


@given(st.binary(min_size=16, max_size=32))
def test_another_secret_makes_other_ids(secret: bytes) -> None:
    assume(secret != SECRET)
    assert keyed_uuid(secret, "a") != keyed_uuid(SECRET, "a")


def test_ids_of_stored_points_do_not_change() -> None:
    """Computed when the first version was released: any other value orphans every stored point."""
    assert point_id(SECRET, TENANT, "issues", "content", "42", 0) == UUID(
        "8c66c356-4dec-4387-8bdc-2e779cb1ebd0"
    )
    assert partition_id(SECRET, TENANT, "issues", "content") == UUID("8fc6d357-0808-4033-87f2-c898a1e3641b")


def test_every_part_of_a_point_tells_it_apart() -> None:
    base = (SECRET, TENANT, "issues", "content", "42", 0)
    others = [
        (b"other secret" * 2, TENANT, "issues", "content", "42", 0),
        (SECRET, UUID(int=1), "issues", "content", "42", 0),
        (SECRET, TENANT, "projects", "content", "42", 0),
        (SECRET, TENANT, "issues", "summary", "42", 0),
        (SECRET, TENANT, "issues", "content", "43", 0),
        (SECRET, TENANT, "issues", "content", "42", 1),
        # The record and chunk of "4", 20 must not be those of "42", 0.
        (SECRET, TENANT, "issues", "content", "4", 20),
    ]
    assert len({point_id(*key) for key in (base, *others)}) == len(others) + 1
    partitions = {partition_id(*key[:4]) for key in others[:4]}
    assert len(partitions) == 4
    assert point_id(*base) not in partitions
