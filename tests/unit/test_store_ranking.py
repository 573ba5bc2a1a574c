"""Records from chunks, against brute force."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ray_app.store.payload import RECORD, Found
from ray_app.store.ranking import MAX_FETCH, best_by_record

CHUNKS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 20)), max_size=60)


class Engine:
    """Scored chunks in memory, and how they were asked for."""

    def __init__(self, chunks: list[tuple[str, int]]) -> None:
        self.points = sorted(
            (Found(str(n), {RECORD: record}, float(score)) for n, (record, score) in enumerate(chunks)),
            key=lambda point: -point.score,
        )
        self.sizes: list[int] = []

    def fetch(self, size: int, without: tuple[str, ...]) -> list[Found]:
        self.sizes.append(size)
        return [point for point in self.points if point.payload[RECORD] not in without][:size]


@given(CHUNKS, st.integers(1, 10))
def test_each_record_once_by_its_best_chunk(chunks: list[tuple[str, int]], limit: int) -> None:
    engine = Engine(chunks)
    found = best_by_record(engine.fetch, limit)

    best = {record: max(score for name, score in chunks if name == record) for record, _ in chunks}
    assert [point.score for point in found] == sorted(best.values(), reverse=True)[:limit]
    assert len({point.payload[RECORD] for point in found}) == len(found)
    assert all(best[point.payload[RECORD]] == point.score for point in found)
    assert len(engine.sizes) <= limit


def test_records_with_very_many_chunks_cost_few_and_bounded_fetches() -> None:
    engine = Engine([("a", 9)] * 3000 + [("b", 8)] * 3000 + [("c", 1)])
    assert [point.payload[RECORD] for point in best_by_record(engine.fetch, 3)] == ["a", "b", "c"]
    assert len(engine.sizes) == 3
    assert max(engine.sizes) <= MAX_FETCH


def test_an_engine_that_ignores_what_to_leave_out_does_not_hang_the_search() -> None:
    engine = Engine([("a", 9)] * 100 + [("b", 1)])
    assert len(best_by_record(lambda size, without: engine.fetch(size, ()), 2)) == 1
