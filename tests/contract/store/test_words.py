"""Search by words: BM25 over the tenant's own texts."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from ray_app.errors import InputError
from ray_app.store.port import Condition, DataChange, Hit
from ray_app.store.words import AVERAGE_WORDS
from ray_app.tenants import TenantScope
from tests.support.vector_store_world import World, batch, meta, unit

VOCABULARY = ["login", "logout", "password", "token", "server", "crash", "timeout", "retry", "cache"]


class TestRanking:
    def test_a_record_is_found_by_a_word_of_its_whole_text(self, world: World) -> None:
        """Also of what the snippet leaves out, and by a part of an identifier."""
        scope = world.tenant()
        long = "filler " * 500 + "calls parse_config.HTTPServer"
        fill(world, scope, {"1": long, "2": "nothing of the kind"}, status="open")

        (hit,) = search(world, scope, "HTTPServer?")

        assert (hit.record_id, hit.chunk, hit.snippet) == ("1", 0, long[:500])
        assert hit.data == {"status": "open"}
        for text in ("parse config", "SERVER", "Parse_Config"):
            assert found(world, scope, text) == ["1"]
        assert found(world, scope, "absent") == []
        assert world.store.search_words(scope, world.index("issues", "summary"), "server", limit=5) == []

    def test_scores_are_those_of_bm25(self, world: World) -> None:
        scope = world.tenant()
        rng = np.random.default_rng(5)
        texts = {str(n): " ".join(rng.choice(VOCABULARY, rng.integers(1, 60))) for n in range(50)}
        texts |= {"51": "login login login", "52": "unicorn"}
        fill(world, scope, texts)
        for query in ("login", "unicorn password", "crash crash timeout absent", " ".join(VOCABULARY)):
            expected = bm25(texts, query)
            hits = search(world, scope, query, limit=100)
            assert {hit.record_id: pytest.approx(hit.score, rel=1e-5) for hit in hits} == expected
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

    def test_deleted_and_replaced_texts_count_no_more(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        kept = {"1": "login crash", "2": "login", "3": "crash dump"}
        fill(world, scope, kept | {str(n): "login" for n in range(10, 40)} | {"3": "login login"})
        world.store.delete(scope, index, [(str(n), 0) for n in range(10, 40)])
        fill(world, scope, {"3": kept["3"]}, version=2)
        hits = search(world, scope, "login crash")
        assert {hit.record_id: pytest.approx(hit.score, rel=1e-5) for hit in hits} == bm25(
            kept, "login crash"
        )

    def test_a_record_is_found_once_by_its_best_chunk(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        metas = [meta("1", 0, "crash"), meta("1", 1, "crash crash"), meta("2", 0, "the crash dump")]
        metas += [meta("long", chunk, "crash crash crash") for chunk in range(200)]
        world.filled(scope, index, batch(metas, [unit(1)] * len(metas)))
        hits = search(world, scope, "crash", limit=3)
        assert [(hit.record_id, hit.chunk) for hit in hits][1:] == [("1", 1), ("2", 0)]
        assert hits[0].record_id == "long"

    def test_conditions_and_limits_hold(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        metas = [meta(str(n), 0, "crash", n=n) for n in range(10)]
        world.filled(scope, index, batch(metas, [unit(1)] * 10))
        small = [Condition("n", "lt", 4)]
        hits = world.store.search_words(scope, index, "crash", limit=10, conditions=small)
        assert {hit.record_id for hit in hits} == {"0", "1", "2", "3"}
        assert len(search(world, scope, "crash", limit=3)) == 3
        for limit in (0, 1001):
            with pytest.raises(InputError, match=str(limit)):
                search(world, scope, "crash", limit=limit)

    @pytest.mark.parametrize("text", ["", " ", "?!", "\x00", "\ud800", "🎉"])
    def test_a_text_without_words_finds_nothing_and_is_stored(self, world: World, text: str) -> None:
        scope = world.tenant()
        fill(world, scope, {"1": text, "2": "crash"})
        assert found(world, scope, text) == []
        assert found(world, scope, "crash") == ["2"]
        assert world.store.count(scope, world.index()) == 2

    def test_what_was_never_set_up_is_empty(self, world: World) -> None:
        assert found(world, world.tenant(), "crash") == []

    def test_new_columns_keep_both_vectors(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        fill(world, scope, {"1": "crash dump"}, status="open")
        world.store.set_data(scope, index, [DataChange("1", 1, {"status": "done"})], 2)
        assert [hit.data for hit in search(world, scope, "dump")] == [{"status": "done"}]
        assert world.found(scope, index) == ["1"]
        assert world.store.vectors_of(scope, index, "1").shape == (1, 4)


class TestTenants:
    def test_no_other_tenants_texts_change_a_score(self, world: World) -> None:
        """Bit for bit, whatever the other writes, and also after it is gone."""
        ours, theirs = world.tenant(), world.tenant()
        rng = np.random.default_rng(9)
        fill(world, ours, {str(n): " ".join(rng.choice(VOCABULARY, 20)) for n in range(60)})
        queries = ["login", "crash timeout", " ".join(VOCABULARY)]
        alone = [scored(world, ours, query) for query in queries]

        fill(world, theirs, {str(n): "login crash " * 9 for n in range(80)})
        assert [scored(world, ours, query) for query in queries] == alone
        assert {hit.snippet for hit in search(world, theirs, "login", limit=90)} == {"login crash " * 9}

        world.store.erase(theirs, [world.space])
        assert [scored(world, ours, query) for query in queries] == alone

    def test_rarity_counts_over_all_indexes_of_the_tenant(self, world: World) -> None:
        """So that hits of several tables can be merged by score."""
        scope, other = world.tenant(), world.index("projects", "content")
        texts = {"1": "crash", "2": "login"}
        fill(world, scope, texts)
        world.filled(scope, other, batch([meta("3", 0, "crash")], [unit(1)]))
        expected = bm25(texts | {"3": "crash"}, "crash")["1"]
        (ours,), (theirs,) = (
            search(world, scope, "crash"),
            world.store.search_words(scope, other, "crash", limit=5),
        )
        assert (ours.score, theirs.score) == (pytest.approx(expected, rel=1e-5),) * 2


def fill(world: World, scope: TenantScope, texts: dict[str, str], version: int = 1, **data: str) -> None:
    metas = [meta(record, 0, text, **data) for record, text in texts.items()]
    world.filled(scope, world.index(), batch(metas, [unit(1)] * len(metas), version))


def search(world: World, scope: TenantScope, text: str, limit: int = 10) -> list[Hit]:
    return world.store.search_words(scope, world.index(), text, limit=limit)


def found(world: World, scope: TenantScope, text: str) -> list[str]:
    return [hit.record_id for hit in search(world, scope, text)]


def scored(world: World, scope: TenantScope, text: str) -> list[tuple[str, float]]:
    return [(hit.record_id, hit.score) for hit in search(world, scope, text, limit=100)]


def bm25(texts: dict[str, str], query: str) -> dict[str, float]:
    """The scores of the texts that share a word with the query, by the book; words are blank-separated."""
    counts = {record: Counter(text.split()) for record, text in texts.items()}
    scores: dict[str, float] = {}
    for word in set(query.split()):
        having = [record for record, words in counts.items() if word in words]
        idf = math.log((len(texts) - len(having) + 0.5) / (len(having) + 0.5) + 1)
        for record in having:
            times, length = counts[record][word], counts[record].total()
            saturated = times * 2.2 / (times + 1.2 * (0.25 + 0.75 * length / AVERAGE_WORDS))
            scores[record] = scores.get(record, 0.0) + idf * saturated
    return scores
