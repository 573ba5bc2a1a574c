"""What a hostile tenant sends, as Hypothesis strategies. Every attack knows the others' names and ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from hypothesis import strategies as st

from tests.isolation.arena import NAMES, TABLE, TOPICS, TWIN_IDS, Arena, Member

Strategy = st.SearchStrategy[Any]
INJECTIONS: Final = (
    "' OR '1'='1",
    "'; DROP TABLE rowbeam.qdrant_vectors; --",
    '") OR 1=1 --',
    "%",
    "_",
    "*",
    "../../acme",
    "..%2f..%2facme",
    "acme\u0000",
    "ａｃｍｅ",
    "{{7*7}}",
    "${jndi:ldap://127.0.0.1/a}",
    "null",
    "undefined",
    "[]",
    "{}",
    "-1",
    "0",
    "9223372036854775808",
    "~probe",
    "p-1/../p-2",
    "p-1;client_id=11",
)
RESERVED: Final = (
    "_t",
    "_p",
    "_v",
    "_h",
    "d._t",
    "d",
    "pk",
    "c",
    "vt",
    "text",
    "d[]._t",
    "client_id",
    "_T",
    "ｔ",
)
TABLES: Final = (TABLE, "issues", "users", "rowbeam.qdrant_vectors", "public.projects", "tenants", "api_keys")
HEADERS: Final = (
    "x-tenant",
    "x-tenant-id",
    "x-client-id",
    "x-forwarded-user",
    "x-rowbeam-tenant",
    "x-original-url",
    "x-http-method-override",
    "openai-organization",
    "openai-project",
)


@dataclass(frozen=True)
class Attack:
    """One attempt: ``send`` gets the arena and the attacker."""

    kind: str
    send: Callable[[Arena, Member], object]


def _names() -> Strategy:
    return st.sampled_from(NAMES) | st.sampled_from(INJECTIONS)


def _victims() -> Strategy:
    return st.integers(0, len(NAMES) - 1)


def _victim(arena: Arena, attacker: Member, place: int) -> Member:
    others = [member for member in arena.members.values() if member is not attacker]
    return others[place % len(others)]


def _ids() -> Strategy:
    """A record id: a twin's, an injection, or ("only", n) for one that only the victim has."""
    return (
        st.sampled_from(TWIN_IDS)
        | st.sampled_from(INJECTIONS)
        | st.tuples(st.just("only"), st.integers(0, 2))
    )


def _id_of(victim: Member, chosen: Any) -> str:
    return victim.own_ids[chosen[1]] if isinstance(chosen, tuple) else str(chosen)


def _values() -> Strategy:
    scalars = st.sampled_from(INJECTIONS) | st.integers() | st.booleans() | st.none() | st.text(max_size=20)
    return scalars | st.lists(scalars, max_size=4) | st.dictionaries(st.text(max_size=5), scalars, max_size=2)


def _filters() -> Strategy:
    """Well-formed and mad filters; "victim" stands for something that names the victim."""
    one = st.fixed_dictionaries(
        {
            "field": st.sampled_from(RESERVED)
            | st.sampled_from(("status", "key", "name"))
            | st.text(max_size=8),
            "op": st.sampled_from(("eq", "in", "gt", "gte", "lt", "lte", "ne", "should", "must_not")),
            "value": _values() | st.just("victim"),
        }
    )
    return st.lists(one, max_size=4) | _values()


def _filled(filters: Any, victim: Member) -> Any:
    """The filters with the victim's client id where they say "victim"."""
    if not isinstance(filters, list):
        return filters
    return [
        {**item, "value": victim.client_id}
        if isinstance(item, dict) and item.get("value") == "victim"
        else item
        for item in filters
    ]


@st.composite
def searches(draw: st.DrawFn) -> Attack:
    query: dict[str, Any] = draw(
        st.fixed_dictionaries({"text": st.sampled_from(TOPICS) | st.sampled_from(INJECTIONS)})
        | st.fixed_dictionaries({"vector": st.lists(st.floats(-1, 1, width=32), min_size=384, max_size=384)})
        | st.fixed_dictionaries(
            {"like": st.fixed_dictionaries({"table": st.sampled_from(TABLES), "id": _ids()})}
        )
    )
    extras = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "tables": st.lists(st.sampled_from(TABLES) | _names(), max_size=3),
                "filters": _filters(),
                "limit": st.integers(-1, 200),
                "hybrid": st.booleans(),
                "score_threshold": st.floats(-2, 2),
                "vector_type": st.sampled_from(("content", "summary", "metadata", "bm25", "dense")),
                "tenant": _names(),
                "client_id": st.integers(0, 70),
                "incarnation": st.uuids().map(str),
                "partition": st.uuids().map(str),
            },
        )
    )
    place = draw(_victims())

    def send(arena: Arena, attacker: Member) -> object:
        victim = _victim(arena, attacker, place)
        body = {**query, **extras}
        if "like" in body:
            body["like"] = {**body["like"], "id": _id_of(victim, body["like"]["id"])}
        if "filters" in body:
            body["filters"] = _filled(body["filters"], victim)
        return arena.attack(attacker, "POST", "/v1/search", json=body)

    return Attack("search", send)


@st.composite
def record_paths(draw: st.DrawFn) -> Attack:
    method = draw(st.sampled_from(("GET", "DELETE", "GET", "HEAD", "POST")))
    table, record, place = draw(st.sampled_from(TABLES) | _names()), draw(_ids()), draw(_victims())
    escape = draw(st.sampled_from(("", "/", "/%")))
    query = draw(st.sampled_from(("", "?tenant=acme", "?client_id=11", "?tenant[]=acme&tenant=acm")))

    def send(arena: Arena, attacker: Member) -> object:
        chosen = _id_of(_victim(arena, attacker, place), record)
        path = f"/v1/tables/{quote(table, safe=escape)}/records/{quote(chosen, safe=escape)}{query}"
        answer = arena.attack(attacker, method, path)
        if method == "DELETE" and answer.status_code < 300:
            _restore(arena, attacker)
        return answer

    return Attack(f"record {method}", send)


def _restore(arena: Arena, attacker: Member) -> None:
    """An attacker may delete rows of its own; it gets them back, so that later attacks have twins."""
    arena.send(attacker.key, "PUT", f"/v1/tables/{TABLE}/records", json={"records": attacker.rows()})


@st.composite
def upserts(draw: st.DrawFn) -> Attack:
    table, record, place = draw(st.sampled_from(TABLES)), draw(_ids()), draw(_victims())
    extra = draw(
        st.dictionaries(
            st.sampled_from((*RESERVED, "tenant", "incarnation", "active")), _values(), max_size=3
        )
    )
    as_victim = draw(st.booleans())

    def send(arena: Arena, attacker: Member) -> object:
        victim = _victim(arena, attacker, place)
        row = {"id": _id_of(victim, record), "name": attacker.text(3), "title": attacker.text(3), **extra}
        if as_victim:
            row["client_id"] = victim.client_id
        return arena.attack(attacker, "PUT", f"/v1/tables/{quote(table)}/records", json={"records": [row]})

    return Attack("upsert", send)


@st.composite
def forged_keys(draw: st.DrawFn) -> Attack:
    """The victim's key id with a secret that is not its own, and keys that are nearly right."""
    place = draw(_victims())
    how = draw(
        st.sampled_from(("own secret", "cut", "flipped", "upper", "spaced", "id", "name", "empty", "basic"))
    )
    header = draw(st.sampled_from(("authorization", "api-key")))
    spoof = draw(st.dictionaries(st.sampled_from(HEADERS), st.sampled_from(NAMES), max_size=2))

    def send(arena: Arena, attacker: Member) -> object:
        victim = _victim(arena, attacker, place)
        key = _forge(how, victim, attacker)
        value = key if header == "api-key" else key if how == "basic" else f"Bearer {key}"
        answer = arena.send(
            None,
            "POST",
            "/v1/search",
            json={"text": TOPICS[0], "tables": [TABLE], "limit": 50},
            headers={**spoof, header: value},
        )
        arena.attempts += 1
        # Nobody is who they say: not even the attacker's own rows may come back.
        arena.judge(attacker, answer)
        assert answer.status_code == 401, (how, answer.status_code)
        arena.refused += 1
        return answer

    return Attack("forged key", send)


def _forge(how: str, victim: Member, attacker: Member) -> str:
    prefix, key_id, secret = victim.key.split("_", 2)
    own = attacker.key.split("_", 2)[2]
    flipped = ("A" if secret[0] != "A" else "B") + secret[1:]
    return {
        "own secret": f"{prefix}_{key_id}_{own}",
        "cut": victim.key[:-1],
        "flipped": f"{prefix}_{key_id}_{flipped}",
        "upper": f"{prefix.upper()}_{key_id}_{secret}",
        "spaced": f"{prefix}_{key_id}_ {secret}",
        "id": f"{prefix}_{key_id}_",
        "name": victim.name,
        "empty": "x",
        "basic": f"Basic {victim.name}:{attacker.key}",
    }[how]


@st.composite
def spoofed_headers(draw: st.DrawFn) -> Attack:
    """The attacker's own key, and headers and parameters that claim to be another."""
    spoof = draw(st.dictionaries(st.sampled_from(HEADERS), st.sampled_from((*NAMES, "1", "11")), min_size=1))
    query = draw(st.sampled_from(("", "?tenant=acme", "?client_id=11", "?key=acme", "?tables=projects")))
    path = draw(st.sampled_from(("/v1/search", "/v1/coverage", "/v1/usage", "/v1/backfills", "/v1/models")))

    def send(arena: Arena, attacker: Member) -> object:
        if path == "/v1/search":
            body = {"text": TOPICS[1], "tables": [TABLE], "limit": 50}
            return arena.attack(attacker, "POST", path + query, json=body, headers=spoof)
        return arena.attack(attacker, "GET", path + query, headers=spoof)

    return Attack("spoofed header", send)


@st.composite
def admin_calls(draw: st.DrawFn) -> Attack:
    name, key_id = draw(_names()), draw(st.sampled_from(("00000000", "*", "..")))
    method, path = draw(
        st.sampled_from(
            (
                ("GET", "/v1/tenants"),
                ("GET", "/v1/erasures"),
                ("GET", "/v1/tenants/{name}"),
                ("DELETE", "/v1/tenants/{name}"),
                ("POST", "/v1/tenants"),
                ("POST", "/v1/tenants/{name}/keys"),
                ("GET", "/v1/tenants/{name}/keys"),
                ("DELETE", "/v1/tenants/{name}/keys/{key_id}"),
                ("PATCH", "/v1/tenants/{name}/limits"),
            )
        )
    )

    def send(arena: Arena, attacker: Member) -> object:
        filled = path.format(name=quote(name, safe=""), key_id=quote(key_id, safe=""))
        body = {"json": {"name": name}} if method in ("POST", "PATCH") else {}
        answer = arena.attack(attacker, method, filled, **body)
        assert answer.status_code in (403, 404, 405), (method, filled, answer.status_code)
        return answer

    return Attack("admin call", send)


@st.composite
def job_calls(draw: st.DrawFn) -> Attack:
    """Another's job, by its id; and ids that are no ids."""
    place, method = draw(_victims()), draw(st.sampled_from(("GET", "DELETE")))
    trick = draw(st.none() | st.sampled_from(INJECTIONS))

    def send(arena: Arena, attacker: Member) -> object:
        chosen = _victim(arena, attacker, place).job_id if trick is None else trick
        answer = arena.attack(attacker, method, f"/v1/backfills/{quote(chosen, safe='')}")
        if trick is None:
            assert answer.status_code == 404, answer.status_code
        return answer

    return Attack("job", send)


def attacks() -> st.SearchStrategy[Attack]:
    return st.one_of(
        searches(), record_paths(), upserts(), forged_keys(), spoofed_headers(), admin_calls(), job_calls()
    )
