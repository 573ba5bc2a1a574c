"""Fusing lists by rank."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ray_app.fusion import RRF_K, fuse
from ray_app.reports import SearchHit

records = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from("123456")), unique=True)


def hits(names: list[tuple[str, str]]) -> list[SearchHit]:
    return [SearchHit(table, record, 1.0 - place, "") for place, (table, record) in enumerate(names)]


@given(lists=st.lists(records, max_size=4))
def test_a_hit_scores_the_sum_of_its_reciprocal_ranks(lists: list[list[tuple[str, str]]]) -> None:
    found = fuse(hits(names) for names in lists)
    expected: dict[tuple[str, str], float] = {}
    for names in lists:
        for rank, name in enumerate(names, start=1):
            expected[name] = expected.get(name, 0) + 1 / (RRF_K + rank)
    assert {(hit.table, hit.record_id): hit.score for hit in found} == expected
    assert [hit.score for hit in found] == sorted(expected.values(), reverse=True)


@given(lists=st.lists(records, min_size=2, max_size=2))
def test_the_order_of_the_lists_does_not_matter(lists: list[list[tuple[str, str]]]) -> None:
    first, second = (hits(names) for names in lists)
    assert fuse([first, second]) == fuse([second, first])


def test_better_in_both_lists_is_better() -> None:
    one, two = [("a", "1"), ("a", "2"), ("a", "3")], [("a", "1"), ("a", "3"), ("a", "2")]
    assert [hit.record_id for hit in fuse([hits(one), hits(two)])] == ["1", "2", "3"]
