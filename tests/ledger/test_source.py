from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from ray_app.db.source import KeyRange, SourceTable
from ray_app.errors import InvalidTableSpec, UnknownTable
from ray_app.spaces import VectorType
from ray_app.tables import TableSpec

SPEC = TableSpec(name="things")


def make_table(database: Engine, key_type: str, ids: list[object], *, client: int = 1) -> None:
    with database.begin() as connection:
        connection.execute(
            text(
                f"CREATE TABLE IF NOT EXISTS things (id {key_type}, client_id bigint, active boolean,"
                " title text, status text, labels text[], PRIMARY KEY (client_id, id))"
            )
        )
        if ids:
            connection.execute(
                text("INSERT INTO things VALUES (:id, :client, true, 'x', 'open', '{a}')"),
                [{"id": key, "client": client} for key in ids],
            )


def read_all(database: Engine, table: SourceTable, ranges: list[KeyRange], client: int = 1) -> list[str]:
    with database.connect() as connection:
        return [row.record_id for part in ranges for row in table.read(connection, client, part.lo, part.hi)]


@pytest.mark.parametrize(
    ("key_type", "ids"),
    [
        ("bigint", [-5, 0, 3, 9, 10, 11, 100, 2**62]),
        ("integer", [1, 2, 3]),
        ("text", ["", "a", "A", "b_c", "ä", "10", "9", "it's", "☃"]),
        ("uuid", [uuid4() for _ in range(9)]),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_ranges_of_any_key_type_cover_every_row_once(
    database: Engine, key_type: str, ids: list[object], size: int
) -> None:
    make_table(database, key_type, ids)
    make_table(database, key_type, ids, client=2)
    table = SourceTable.reflect(database, SPEC)
    with database.connect() as connection:
        ranges = table.cut(connection, 1, size)
        assert table.count(connection, 1) == len(ids)
    assert sorted(read_all(database, table, ranges)) == sorted(str(key) for key in ids)
    assert ranges[0].lo is None
    assert ranges[-1].hi is None
    assert sum(part.expected for part in ranges) == len(ids)
    assert all(part.expected <= size for part in ranges)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.sets(st.text(alphabet=st.characters(exclude_characters="\x00", codec="utf-8"), max_size=8)),
    size=st.integers(1, 5),
)
def test_text_keys_of_any_kind_are_cut_and_read_back(database: Engine, ids: set[str], size: int) -> None:
    with database.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS things"))
    make_table(database, "text", list(ids))
    table = SourceTable.reflect(database, SPEC)
    with database.connect() as connection:
        ranges = table.cut(connection, 1, size)
        assert table.present(connection, 1, [*ids, "\x01 none"]) == ids - {"\x01 none"} | (
            ids & {"\x01 none"}
        )
    assert sorted(read_all(database, table, ranges)) == sorted(ids)


def test_rows_that_arrive_after_the_cut_are_read_too(database: Engine) -> None:
    make_table(database, "bigint", [10, 20, 30, 40])
    table = SourceTable.reflect(database, SPEC)
    with database.connect() as connection:
        ranges = table.cut(connection, 1, 2)
    make_table(database, "bigint", [5, 25, 99])
    assert read_all(database, table, ranges) == ["5", "10", "20", "25", "30", "40", "99"]


def test_inactive_rows_are_neither_counted_nor_read(database: Engine) -> None:
    make_table(database, "bigint", [1, 2, 3, 4])
    with database.begin() as connection:
        connection.execute(text("UPDATE things SET active = false WHERE id = 2"))
        connection.execute(text("UPDATE things SET active = NULL WHERE id = 3"))
    table = SourceTable.reflect(database, SPEC)
    with database.connect() as connection:
        assert table.count(connection, 1) == 2
        assert table.present(connection, 1, ["1", "2", "3", "4"]) == {"1", "4"}
        assert [row.record_id for row in table.read_ids(connection, 1, ["4", "3", "1"])] == ["1", "4"]
    everything = SourceTable.reflect(database, replace(SPEC, active_column=None))
    with database.connect() as connection:
        assert everything.count(connection, 1) == 4


def test_payload_columns_are_those_that_exist(database: Engine) -> None:
    make_table(database, "bigint", [1])
    table = SourceTable.reflect(database, SPEC)
    assert table.payload_fields() == ["status", "labels"]


def test_an_unknown_table_is_named(database: Engine) -> None:
    with pytest.raises(UnknownTable, match="public\\.nothing"):
        SourceTable.reflect(database, TableSpec(name="nothing"))


@pytest.mark.parametrize(
    "name", ['things"; DROP TABLE things; --', "things WHERE true", "pg_class; SELECT 1"]
)
def test_a_name_that_is_sql_finds_no_table(database: Engine, name: str) -> None:
    make_table(database, "bigint", [1])
    with pytest.raises(UnknownTable):
        SourceTable.reflect(database, TableSpec(name=name))
    with pytest.raises(InvalidTableSpec):
        SourceTable.reflect(database, replace(SPEC, primary_key=name))


@pytest.mark.parametrize(
    ("ddl", "spec", "complaint"),
    [
        ("id bigint, client_id bigint, active boolean, title text", SPEC, "no primary key or unique index"),
        ("client_id bigint PRIMARY KEY, active boolean", SPEC, "no column 'id'"),
        ("id bigint PRIMARY KEY, active boolean", SPEC, "no column 'client_id'"),
        ("id bigint PRIMARY KEY, client_id text, active boolean", SPEC, "not an integer"),
        ("id bigint PRIMARY KEY, client_id bigint", SPEC, "active column"),
        ("id bigint PRIMARY KEY, client_id bigint, active text", SPEC, "active column"),
        ("id float PRIMARY KEY, client_id bigint, active boolean", SPEC, "bigint, text or uuid"),
        ("id bigint, x bigint, client_id bigint, active boolean, UNIQUE (id, x)", SPEC, "no primary key"),
    ],
)
def test_a_table_that_does_not_fit_its_spec_is_refused(
    database: Engine, ddl: str, spec: TableSpec, complaint: str
) -> None:
    with database.begin() as connection:
        connection.execute(text(f"CREATE TABLE things ({ddl})"))
    with pytest.raises(InvalidTableSpec, match=complaint):
        SourceTable.reflect(database, spec)


def test_a_table_without_any_text_column_is_refused_for_that_type(database: Engine) -> None:
    make_table(database, "bigint", [1])
    table = SourceTable.reflect(database, SPEC)
    table.check_text(VectorType.CONTENT)
    with database.begin() as connection:
        connection.execute(text("ALTER TABLE things DROP COLUMN title"))
    with pytest.raises(InvalidTableSpec, match="content text"):
        SourceTable.reflect(database, SPEC).check_text(VectorType.CONTENT)


def test_record_ids_are_the_keys_text(database: Engine) -> None:
    key = UUID("12345678-1234-5678-1234-567812345678")
    make_table(database, "uuid", [key])
    table = SourceTable.reflect(database, SPEC)
    with database.connect() as connection:
        rows = list(table.read(connection, 1, None, None))
        assert table.present(connection, 1, [rows[0].record_id]) == {str(key)}
