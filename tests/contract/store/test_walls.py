"""The seven walls between tenants, taken out in turn: another wall stops the leak, or the suite sees it."""

from __future__ import annotations

import ast
import inspect
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse

from ray_app.errors import InputError, StoreRefused
from ray_app.identity import partition_id
from ray_app.spaces import EmbeddingSpace
from ray_app.store import conditions, payload, server_models
from ray_app.store.edge import EdgeStore
from ray_app.store.port import Condition, Hit, IndexKey, VectorStore
from ray_app.store.routing import EdgePort, RoutedStore
from ray_app.store.server import ServerStore
from ray_app.tenants import Placement, TenantScope
from tests.contract.store.conftest import SERVER_URL
from tests.support.isolation_matrix import AUDITS, NEUTRAL, OPERATIONS, WALLS, Twins, attempt
from tests.support.scripted_qdrant import Answer, ScriptedServer, collection_info
from tests.support.vector_store_world import DIMENSIONS, SECRET, World, batch, meta, unit

ROOT = Path(__file__).parents[3]
#: Reads whose points can be looked at before they leave; Edge counts without fetching.
CHECKED_READS = {
    *("search", "search_words", "vectors_of", "stored_vectors", "scroll"),
    *("digest", "points_between", "points_of"),
}


def port_methods(port: type = VectorStore) -> dict[str, Any]:
    """What a port asks for, without what comes with its being a protocol."""
    return {
        name: method
        for base in port.__mro__
        if base.__module__.startswith("ray_app.")
        for name, method in vars(base).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }


class TestEveryOperation:
    """The matrix of operations: whole, and with walls taken out."""

    def test_a_new_operation_needs_an_entry(self) -> None:
        assert set(port_methods()) == set(OPERATIONS) | AUDITS | NEUTRAL

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_the_walls_keep_tenants_apart(
        self, world: World, operation: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert attempt(Twins.made(world), operation, monkeypatch) == "kept"

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_no_wall_is_the_only_one(
        self, world: World, operation: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outcomes = {wall: attempt(Twins.made(world), operation, monkeypatch, wall) for wall in WALLS}
        assert "leaked" not in outcomes.values()
        # A filter that lost its tenant is stopped before it reaches the engine; a home needs none.
        filtered = operation != "ensure_index" and (operation != "erase" or not Twins.made(world).separate)
        assert outcomes["tenant condition"] == "refused" or not filtered

    @pytest.mark.parametrize("operation", sorted(CHECKED_READS))
    def test_the_result_wall_stands_when_filters_fail(
        self, world: World, operation: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        faults = ("tenant condition", "filter check")
        assert attempt(Twins.made(world), operation, monkeypatch, *faults) == "refused"

    @pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - {"ensure_index"}))
    def test_without_walls_the_matrix_sees_every_leak(
        self, world: World, operation: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        twins = Twins.made(world)
        gone = ("tenant condition", "filter check", "result check")
        # A home of one's own is removed by its name, which is a wall of its own.
        expected = "kept" if operation == "erase" and twins.separate else "leaked"
        assert attempt(twins, operation, monkeypatch, *gone) == expected


class TestTypeWall:
    def test_every_operation_takes_a_scope_first_and_has_no_default_for_it(self) -> None:
        for name, method in port_methods(EdgePort).items():
            if name not in NEUTRAL:
                assert scoped(method), name

    def test_an_operation_without_a_scope_is_seen(self) -> None:
        def bare(self: Any, index: IndexKey) -> None: ...
        def optional(self: Any, scope: TenantScope | None, index: IndexKey) -> None: ...
        def defaulted(self: Any, scope: TenantScope = None, index: IndexKey = None) -> None: ...  # type: ignore[assignment]

        assert not any(map(scoped, (bare, optional, defaulted)))

    @pytest.mark.parametrize("store", [EdgeStore, ServerStore, RoutedStore])
    def test_an_adapter_offers_nothing_beside_the_port(self, store: type) -> None:
        public = {name for name in dir(store) if not name.startswith("_")}
        # Of the embedded store more is asked, by the tenant's scope, too; the rest is how a store is made.
        assert public - set(port_methods(EdgePort)) <= {"connect", "embedded"}

    @pytest.mark.parametrize("operation", sorted(set(OPERATIONS)))
    def test_no_scope_no_call(self, world: World, operation: str) -> None:
        twins = Twins.made(world)
        before = twins.foreign("search")
        twins.ours, real = typing.cast(TenantScope, None), twins.ours
        with pytest.raises(AttributeError):
            list(OPERATIONS[operation](twins))
        twins.ours = real
        assert twins.foreign("search") == before

    def test_only_the_registry_makes_scopes(self) -> None:
        makers = {
            str(path.relative_to(ROOT))
            for top in ("ray_app", "jobs", "deployments")
            for path in (ROOT / top).rglob("*.py")
            if makes_scopes(path.read_text(encoding="utf-8"))
        }
        assert makers == {"ray_app/db/registry.py"}

    @pytest.mark.parametrize(
        "source",
        [
            "scope = TenantScope(incarnation, placement, secret)",
            "scope = tenants.TenantScope(incarnation, placement, secret)",
            "from ray_app.tenants import TenantScope as Scope",
            "make = TenantScope.__new__",
            "make = partial(TenantScope, incarnation)",
            "class Wide(TenantScope): pass",
            "other = replace(scope, incarnation=theirs)",
            "other = dataclasses.replace(self.scope, placement=POOLED)",
        ],
    )
    def test_another_maker_is_seen(self, source: str) -> None:
        assert makes_scopes(source)

    def test_naming_the_type_is_no_making(self) -> None:
        assert not makes_scopes(
            "from ray_app.tenants import TenantScope\n"
            "def act(scope: TenantScope, all: list[TenantScope]) -> TenantScope | None: return scope\n"
            "scopes: dict[str, TenantScope] = {}\n"
        )


def scoped(method: Callable[..., Any]) -> bool:
    second = list(inspect.signature(method).parameters.values())[1]
    hint = typing.get_type_hints(method).get(second.name)
    return second.name == "scope" and hint is TenantScope and second.default is inspect.Parameter.empty


def makes_scopes(source: str) -> bool:
    """Whether a module uses the type beyond annotations, or copies a scope with another tenant in it."""
    tree = ast.parse(source)
    notes = [
        part
        for node in ast.walk(tree)
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if part is not None
    ]
    own = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "TenantScope"]
    allowed = {id(node) for part in [*notes, *own] for node in ast.walk(part)}
    return any(_makes(node) for node in ast.walk(tree) if id(node) not in allowed)


def _makes(node: ast.AST) -> bool:
    match node:
        case ast.Name(id="TenantScope") | ast.Attribute(attr="TenantScope"):
            return True
        case ast.alias(name="TenantScope", asname=str()):
            return True
        case ast.Call(func=ast.Name(id="replace") | ast.Attribute(attr="replace")):
            return bool({"incarnation", "placement", "secret"} & {word.arg for word in node.keywords})
    return False


class TestCompilerWall:
    """That a filter names the tenant is in the matrix; here, what a user's conditions and words may do."""

    def test_a_condition_on_a_reserved_name_reaches_the_rows_own_columns_only(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        twins = Twins.made(world)
        ours = [Condition("_t", "eq", str(twins.ours.incarnation))]
        assert world.found(twins.ours, twins.index, conditions=ours) == []
        monkeypatch.setattr(conditions, "check_field", lambda name: name)
        assert world.found(twins.ours, twins.index, conditions=ours) == ["own"]
        theirs = [Condition("_t", "eq", str(twins.theirs.incarnation))]
        assert world.found(twins.ours, twins.index, conditions=theirs) == []

    @pytest.mark.parametrize("world", ["local-pooled"], indirect=True)
    def test_without_its_corpus_other_tenants_texts_would_change_a_score(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ours, theirs, index = world.tenant(), world.tenant(), world.index()

        def score() -> float:
            return world.store.search_words(ours, index, "crash", limit=1)[0].score

        def without_corpus(
            query: Any, where: Any, whole: Any = server_models.query_options
        ) -> dict[str, Any]:
            return {name: value for name, value in whole(query, where).items() if name != "search_params"}

        world.filled(ours, index, batch([meta("1", 0, "crash"), meta("2", 0, "login")], [unit(1)] * 2))
        alone = score()
        world.filled(theirs, index, batch([meta(str(n), 0, "crash") for n in range(9)], [unit(1)] * 9))
        assert score() == alone
        monkeypatch.setattr(server_models, "query_options", without_corpus)
        assert score() != alone


class TestSurfaceWall:
    #: What a caller can say. An engine would take a string or an integer for a vector to be the id of a
    #: point, whoever's; so searches have no parameter for ids, filters, names of collections or of vectors.
    PARAMETERS: typing.ClassVar = {
        *("scope", "index", "spaces", "payload_fields", "batch", "changes", "version", "keys"),
        *("vector", "text", "record_id", "limit", "conditions", "score_threshold", "page"),
        # Of audits, which no route of the API calls; a shared collection keeps tenants apart even then.
        *("space", "partitions", "lo", "hi", "point_ids"),
        # Of copies, which no route of the API calls either; ids to page by, under the asker's own filter.
        *("after", "copies"),
    }

    def test_a_new_parameter_needs_a_verdict(self) -> None:
        said = {name for method in port_methods().values() for name in inspect.signature(method).parameters}
        assert said - {"self"} == self.PARAMETERS

    def test_a_hit_tells_no_id_and_no_vector(self) -> None:
        assert {field.name for field in fields(Hit)} == {"record_id", "chunk", "score", "snippet", "data"}

    @pytest.mark.parametrize("kind", [str, list, np.array, int])
    def test_a_points_id_is_no_query(self, world: World, kind: Callable[[Any], Any]) -> None:
        twins = Twins.made(world)
        foreign = str(next(twins.world.store.scroll(twins.theirs, twins.index)).point_id)
        query = kind(foreign) if kind is not int else 7
        with pytest.raises(InputError):
            world.store.search(twins.ours, twins.index, query, limit=3)

    @pytest.mark.parametrize("world", ["local-pooled"], indirect=True)
    def test_without_the_check_of_queries_a_foreign_vector_would_be_read(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Our own points' scores would tell where theirs lies, and no filter or result check sees it."""
        twins = Twins.made(world)
        foreign = np.array(str(next(world.store.scroll(twins.theirs, twins.index)).point_id))
        monkeypatch.setattr(payload, "check_vectors", lambda vectors, space, rows: vectors)
        (hit,) = world.store.search(twins.ours, twins.index, foreign, limit=3)
        assert hit.score == pytest.approx(1.0)


class TestWriteWall:
    """That writes spare foreign points is in the matrix; here, that none can be planted."""

    def test_reserved_names_in_a_row_plant_nothing(self, world: World) -> None:
        twins = Twins.made(world)
        assert not planted(twins)

    def test_columns_beside_our_own_keys_would_be_seen_to_plant(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = payload._own_keys
        monkeypatch.setattr(payload, "_own_keys", lambda meta: {**whole(meta), **meta.data})
        assert planted(Twins.made(world))


def planted(twins: Twins) -> bool:
    """Whether a row of ours whose columns are named like our own keys turns up among theirs."""
    partition = partition_id(SECRET, twins.theirs.incarnation, "issues", "content")
    columns = {
        "_t": str(twins.theirs.incarnation),
        "_p": str(partition),
        "_v": 0,
        "pk": "planted",
        "text": "x",
    }
    before = twins.foreign("upsert")
    twins.world.store.upsert(twins.ours, twins.index, batch([meta("2", 0, "ours", **columns)], [unit(1)], 5))
    return twins.foreign("upsert") != before


class TestEngineWall:
    """The server's own refusal of a dense query that names no tenant, as far as settings show it."""

    def settings(self, placement: Placement = Placement.POOLED) -> dict[str, Any]:
        space = EmbeddingSpace("test", "1", DIMENSIONS)
        return server_models.collection_settings(TenantScope(uuid4(), placement, SECRET), space)

    def test_a_pooled_collection_is_armed(self) -> None:
        assert armed(self.settings(), server_models.OWN_INDEXES)

    @pytest.mark.parametrize(
        ("part", "name", "value"),
        [
            ("strict_mode_config", "enabled", False),
            ("strict_mode_config", "search_allow_exact", True),
            ("strict_mode_config", "search_allow_exact", None),
            ("hnsw_config", "m", 16),
            ("hnsw_config", "payload_m", 0),
        ],
    )
    def test_a_disarmed_collection_is_seen(self, part: str, name: str, value: Any) -> None:
        settings = self.settings()
        settings[part] = settings[part].model_copy(update={name: value})
        assert not armed(settings, server_models.OWN_INDEXES)

    def test_a_partition_that_is_no_tenant_to_the_engine_is_seen(self) -> None:
        indexes = dict(server_models.OWN_INDEXES)
        indexes[payload.PARTITION] = indexes[payload.TENANT]
        assert not armed(self.settings(), indexes)


if SERVER_URL:

    @pytest.mark.server
    @pytest.mark.parametrize("world", ["server-pooled"], indirect=True)
    def test_the_server_refuses_a_query_that_names_no_tenant(world: World) -> None:
        twins = Twins.made(world)
        name = server_models.traffic_name(twins.ours, world.space)
        client = QdrantClient(url=SERVER_URL)
        with pytest.raises(UnexpectedResponse, match="400"):
            client.query_points(name, query=[1.0, 0.0, 0.0, 0.0], using="dense", limit=1)
        client.close()


def armed(settings: dict[str, Any], indexes: dict[str, Any]) -> bool:
    strict, graph = settings["strict_mode_config"], settings["hnsw_config"]
    return bool(
        strict.enabled
        and strict.search_allow_exact is False
        and graph.m == 0
        and graph.payload_m
        and indexes[payload.PARTITION].is_tenant
    )


class TestCredentialWall:
    """Rowbeam's own key to a server may be one that reads and writes the points of named collections only."""

    SPACE = EmbeddingSpace("test", "1", DIMENSIONS)
    INDEX = IndexKey("issues", "content", SPACE)

    @pytest.fixture
    def qdrant(self) -> typing.Iterator[ScriptedServer]:
        """A server that answers a token with access "prw" to the space's alias and collection."""
        server = ScriptedServer()
        alias = f"es_{self.SPACE.space_id}"
        info = collection_info(DIMENSIONS, {"space_id": self.SPACE.space_id})
        info["payload_schema"] = {
            key: {"data_type": "keyword", "points": 0} for key in (*server_models.OWN_INDEXES, "d.status")
        }
        applied = {"operation_id": 1, "status": "completed"}
        allowed = {
            r"GET /$": None,
            rf"GET /collections/{alias}(_v1)?/exists$": Answer(result={"exists": True}),
            rf"GET /collections/{alias}_v1$": Answer(result=info),
            rf"PUT /collections/{alias}/points\?": Answer(result=applied),
            rf"POST /collections/{alias}/points/delete\?": Answer(result=applied),
            rf"POST /collections/{alias}/points/batch\?": Answer(result=[applied]),
            rf"POST /collections/{alias}/points/query$": Answer(result={"points": []}),
            rf"POST /collections/{alias}/points/scroll$": Answer(
                result={"points": [], "next_page_offset": None}
            ),
        }
        server.will("(GET|PUT|POST|PATCH|DELETE) /.", Answer(403))
        for line, answer in allowed.items():
            if answer is not None:
                server.will(line, answer)
        yield server
        server.close()

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_a_token_for_points_serves_every_operation_once_set_up(
        self, qdrant: ScriptedServer, operation: str
    ) -> None:
        assert list(OPERATIONS[operation](self.twins(qdrant))) == []

    def test_a_call_that_needs_more_is_seen_and_refused(
        self, qdrant: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        twins = self.twins(qdrant)
        with pytest.raises(StoreRefused, match="refuses the API key"):
            twins.world.store.ensure_index(twins.ours, twins.index, ["another_column"])
        monkeypatch.setitem(server_models.OWN_INDEXES, "_new", server_models.FIELD_INDEX)
        with pytest.raises(StoreRefused, match="refuses the API key"):
            list(OPERATIONS["ensure_index"](twins))

    def test_a_tenant_of_another_collection_is_out_of_reach(self, qdrant: ScriptedServer) -> None:
        twins = self.twins(qdrant)
        twins.ours = TenantScope(uuid4(), Placement.DEDICATED, SECRET)
        for operation in sorted(OPERATIONS):
            with pytest.raises(StoreRefused, match="refuses the API key"):
                list(OPERATIONS[operation](twins))

    def twins(self, qdrant: ScriptedServer) -> Twins:
        world = World(ServerStore.connect(qdrant.url), Placement.POOLED, lambda *_: None, self.SPACE)
        return Twins(world, world.tenant(), world.tenant(), self.INDEX)
