"""Loading JSON-lines files into platform tables, on a real Postgres."""

from __future__ import annotations

import gzip
import json
import resource
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from ray_app.db.engine import engine_for
from ray_app.errors import ConfigError, DatabaseUnavailable, InvalidRecord, InvalidTableSpec, UnknownTable
from ray_app.loading import load_jsonl
from ray_app.sample.schema import create_tables
from ray_app.tables import PLATFORM_TABLES, TableSpec

PULL_REQUESTS = PLATFORM_TABLES["pull_requests"]
ISSUES = PLATFORM_TABLES["issues"]


def write(path: Path, lines: Iterable[object]) -> Path:
    """A JSON-lines file; strings are written as they are, everything else as JSON."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def rows(database: Engine, table: str, columns: str = "*") -> list[dict[str, Any]]:
    with database.connect() as connection:
        found = connection.execute(text(f"SELECT {columns} FROM {table} ORDER BY client_id, id"))
        return [dict(row) for row in found.mappings()]


def test_body_becomes_the_description_and_unknown_fields_are_reported(
    database: Engine, tmp_path: Path
) -> None:
    path = write(
        tmp_path / "prs.jsonl",
        [
            {
                "id": 1,
                "client_id": 999,
                "title": "Fix retries",
                "body": "They never stop. 🚀",
                "stars": 3,
                "created_at": "2026-01-02T03:04:05+02:00",
                "labels": ["bug", "a,b"],
            },
            {"id": 2, "title": "", "body": None, "url": "x"},
        ],
    )
    report = load_jsonl(database, path, client_id=7, spec=PULL_REQUESTS)
    assert (report.table, report.inserted, report.ignored_fields) == ("pull_requests", 2, ("stars", "url"))
    first, second = rows(database, "pull_requests")
    assert first["client_id"] == 7, "the tenant decides, not the file"
    assert first["description"] == "They never stop. 🚀"
    assert first["labels"] == ["bug", "a,b"]
    assert first["created_at"].isoformat() == "2026-01-02T01:04:05+00:00"
    assert first["active"] is True
    assert (second["title"], second["description"]) == ("", None)
    assert second["created_at"] is not None, "a field that is missing takes the column's default"


def test_body_does_not_replace_a_description_and_goes_to_content_without_one(
    database: Engine, tmp_path: Path
) -> None:
    both = write(tmp_path / "a.jsonl", [{"id": 1, "description": "kept", "body": "dropped"}])
    assert load_jsonl(database, both, client_id=1, spec=PULL_REQUESTS).ignored_fields == ("body",)
    assert rows(database, "pull_requests")[0]["description"] == "kept"
    comment = write(tmp_path / "b.jsonl", [{"id": 1, "body": "please rename"}])
    load_jsonl(database, comment, client_id=1, spec=PLATFORM_TABLES["pull_request_comments"])
    assert rows(database, "pull_request_comments")[0]["content"] == "please rename"


def test_loading_again_changes_what_the_file_says_and_nothing_else(database: Engine, tmp_path: Path) -> None:
    path = tmp_path / "issues.jsonl"
    load_jsonl(
        database,
        write(path, [{"id": n, "summary": f"s{n}", "status": "open"} for n in (1, 2)]),
        client_id=1,
        spec=ISSUES,
    )
    before = rows(database, "issues")
    load_jsonl(database, path, client_id=1, spec=ISSUES)
    assert rows(database, "issues") == before
    load_jsonl(database, write(path, [{"id": 2, "summary": "changed"}]), client_id=1, spec=ISSUES)
    after = rows(database, "issues")
    assert after[0] == before[0]
    assert after[1] == {**before[1], "summary": "changed"}


def test_two_tenants_may_use_the_same_ids(database: Engine, tmp_path: Path) -> None:
    for client, word in ((1, "ours"), (2, "theirs")):
        path = write(tmp_path / f"{client}.jsonl", [{"id": n, "title": word} for n in range(1, 4)])
        assert load_jsonl(database, path, client_id=client, spec=PULL_REQUESTS).inserted == 3
    assert [row["title"] for row in rows(database, "pull_requests")] == ["ours"] * 3 + ["theirs"] * 3


def test_gzip_and_a_byte_order_mark_and_blank_lines_are_fine(database: Engine, tmp_path: Path) -> None:
    path = tmp_path / "prs.jsonl.gz"
    path.write_bytes(gzip.compress(b'\xef\xbb\xbf{"id": 1, "title": "a"}\r\n\r\n{"id": 2}\n   \n'))
    assert load_jsonl(database, path, client_id=1, spec=PULL_REQUESTS).inserted == 2
    assert [row["id"] for row in rows(database, "pull_requests")] == [1, 2]


def test_an_empty_file_loads_nothing(database: Engine, tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    path.write_text("")
    assert load_jsonl(database, path, client_id=1, spec=PULL_REQUESTS).inserted == 0


def test_hard_text_arrives_unchanged(database: Engine, tmp_path: Path) -> None:
    texts = [
        "",
        " ",
        "a\tb\nc\\N\\.\r",
        "👩‍👩‍👧‍👦 مرحبا",
        "\u2028\x01\x7f",
        "x" * 1_000_000,
        "\\N",
        '{"a"}',
        "%s %%",
    ]
    path = write(tmp_path / "hard.jsonl", [{"id": n, "title": value} for n, value in enumerate(texts)])
    load_jsonl(database, path, client_id=1, spec=PULL_REQUESTS)
    assert [row["title"] for row in rows(database, "pull_requests")] == texts


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{not json", "line 3: it is not JSON"),
        ("[1]", "line 3: it holds a list, not an object"),
        ("null", "line 3: it holds a null, not an object"),
        ('{"id": NaN}', "line 3: NaN is not JSON"),
        ('{"id": 3, "id": 4}', "line 3: the field 'id' is there twice"),
        ('{"title": "no key"}', "line 3: it has no 'id'"),
        ('{"id": null}', "line 3: it has no 'id'"),
        ('{"id": 1}', "line 3: its key is that of an earlier line"),
        ('{"id": "abc"}', "line 3: the value of 'id' does not fit its type, BIGINT"),
        ('{"id": 1e30}', "line 3: the value of 'id' does not fit its type, BIGINT"),
        ('{"id": 92233720368547758080}', "line 3: the value of 'id' does not fit its type, BIGINT"),
        ('{"id": 3, "created_at": "soonish"}', "line 3: the value of 'created_at' does not fit its type"),
        ('{"id": 3, "created_at": ""}', "line 3: the value of 'created_at' does not fit its type"),
        ('{"id": 3, "title": ["a"]}', "line 3: the value of 'title' does not fit its type, TEXT"),
        ('{"id": 3, "title": {"a": 1}}', "line 3: the value of 'title' does not fit its type, TEXT"),
        ('{"id": 3, "title": true}', "line 3: the value of 'title' does not fit its type, TEXT"),
        ('{"id": 3, "labels": "bug"}', "line 3: the value of 'labels' does not fit its type"),
        ('{"id": 3, "labels": [["bug"]]}', "line 3: the value of 'labels' does not fit its type"),
        ('{"id": 3, "active": "maybe"}', "line 3: the value of 'active' does not fit its type, BOOLEAN"),
        ('{"id": 3, "title": "a\\u0000b"}', "line 3: 'title' holds a NUL character"),
        ('{"id": 3, "labels": ["\\u0000"]}', "line 3: 'labels' holds a NUL character"),
        ('{"id": 3, "title": "\\ud800"}', "line 3: 'title' holds half of a surrogate pair"),
        ('{"id": ' + "1" * 5000 + "}", "line 3: it holds a number of more than 1000 digits"),
        ("[" * 100_000, "line 3: it is nested too deeply"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_loaded(
    database: Engine, tmp_path: Path, line: str, complaint: str
) -> None:
    path = write(tmp_path / "prs.jsonl", [{"id": 1, "title": "good"}, "", line, {"id": 9}])
    with pytest.raises(InvalidRecord) as caught:
        load_jsonl(database, path, client_id=1, spec=PULL_REQUESTS)
    assert complaint in str(caught.value)
    assert rows(database, "pull_requests") == []


def test_a_line_that_is_not_utf8_is_named(database: Engine, tmp_path: Path) -> None:
    path = tmp_path / "prs.jsonl"
    path.write_bytes(b'{"id": 1}\n{"id": 2, "title": "caf\xe9"}\n')
    with pytest.raises(InvalidRecord, match=r"prs\.jsonl, line 2: it is not UTF-8"):
        load_jsonl(database, path, client_id=1, spec=PULL_REQUESTS)
    assert rows(database, "pull_requests") == []


def test_files_that_cannot_be_read_are_said_so(database: Engine, tmp_path: Path) -> None:
    plain = tmp_path / "plain.jsonl.gz"
    plain.write_text('{"id": 1}\n')
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"id": 1}\n' * 10_000)[:-20])
    for path, complaint in (
        (tmp_path / "missing.jsonl", "no file"),
        (tmp_path, "is not a file"),
        (plain, "not a whole gzip file"),
        (cut, "not a whole gzip file"),
    ):
        with pytest.raises(InvalidRecord, match=complaint):
            load_jsonl(database, path, client_id=1, spec=PULL_REQUESTS)


def test_uuid_and_text_keys_and_json_columns(database: Engine, tmp_path: Path) -> None:
    key = "6f1c2b1e-0000-4000-8000-000000000001"
    path = write(tmp_path / "a.jsonl", [{"id": key, "state": "approved"}])
    load_jsonl(database, path, client_id=1, spec=PLATFORM_TABLES["pull_request_reviews"])
    assert str(rows(database, "pull_request_reviews")[0]["id"]) == key
    path = write(tmp_path / "b.jsonl", [{"id": 7, "name": 12.50}])
    load_jsonl(database, path, client_id=1, spec=PLATFORM_TABLES["system_settings"])
    assert rows(database, "system_settings", "id, name") == [{"id": "7", "name": "12.5"}]
    steps = [{"name": "Öffnen", "weight": 0.5}, None]
    path = write(tmp_path / "c.jsonl", [{"id": 1, "steps": steps}, {"id": 2, "steps": "text"}])
    load_jsonl(database, path, client_id=1, spec=PLATFORM_TABLES["workflows"])
    assert [row["steps"] for row in rows(database, "workflows")] == [steps, "text"]


def test_a_table_with_odd_names_and_its_own_rules(database: Engine, tmp_path: Path) -> None:
    """Identifiers are the catalogue's, quoted; a broken rule of the table is told without the row's text."""
    with database.begin() as connection:
        connection.execute(text('CREATE SCHEMA "Odd schema"'))
        connection.execute(
            text(
                'CREATE TABLE "Odd schema"."select;--" ("Key" text PRIMARY KEY,'
                ' "the ""tenant""" bigint NOT NULL, "from" text NOT NULL, size int CHECK (size > 0),'
                " twice int GENERATED ALWAYS AS (size * 2) STORED)"
            )
        )
    spec = TableSpec(
        "select;--",
        primary_key="Key",
        tenant_column='the "tenant"',
        active_column=None,
        db_schema="Odd schema",
    )
    path = write(tmp_path / "odd.jsonl", [{"Key": "a", "from": "here", "size": 2, "twice": 9, 'x"y': 1}])
    report = load_jsonl(database, path, client_id=1, spec=spec)
    assert report.ignored_fields == ("twice", 'x"y')
    with database.connect() as connection:
        assert connection.execute(text('SELECT * FROM "Odd schema"."select;--"')).one() == (
            "a",
            1,
            "here",
            2,
            4,
        )
    write(path, [{"Key": "b", "size": 1}])
    with pytest.raises(InvalidRecord, match="line 1: it has no 'from'"):
        load_jsonl(database, path, client_id=1, spec=spec)
    write(path, [{"Key": "b", "from": "secret row text", "size": -1}])
    with pytest.raises(InvalidRecord, match="violates check constraint") as caught:
        load_jsonl(database, path, client_id=1, spec=spec)
    assert "secret" not in str(caught.value)
    write(path, [{"Key": "a", "from": "stolen"}, {"Key": "z", "from": "new"}])
    with pytest.raises(InvalidRecord, match="1 of its ids are another tenant's"):
        load_jsonl(database, path, client_id=2, spec=spec)
    with database.connect() as connection:
        assert connection.scalar(text('SELECT count(*) FROM "Odd schema"."select;--"')) == 1


def test_tables_that_cannot_take_rows(database: Engine, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": 1}])
    with pytest.raises(UnknownTable):
        load_jsonl(database, path, client_id=1, spec=TableSpec("nowhere"))
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE keyless (id bigint, client_id bigint, active boolean)"))
    with pytest.raises(InvalidTableSpec, match="primary key"):
        load_jsonl(database, path, client_id=1, spec=TableSpec("keyless"))


def test_a_user_who_may_not_write_is_told_so(database: Engine, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": 1}])
    with database.begin() as connection:
        connection.execute(text("CREATE ROLE reader LOGIN"))
        connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"))
    reader = engine_for(database.url.set(username="reader").render_as_string(hide_password=False))
    try:
        with pytest.raises(ConfigError, match="may not load into issues"):
            load_jsonl(reader, path, client_id=1, spec=ISSUES)
    finally:
        reader.dispose()
        with database.begin() as connection:
            connection.execute(text("DROP OWNED BY reader"))
            connection.execute(text("DROP ROLE reader"))


def test_a_database_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": 1}])
    nowhere = engine_for("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable):
        load_jsonl(nowhere, path, client_id=1, spec=ISSUES)


def test_memory_does_not_grow_with_the_file(database: Engine, tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        for number in range(20_000):
            file.write(json.dumps({"id": number, "title": "t" * 5_000}) + "\n")
    load_jsonl(database, write(tmp_path / "one.jsonl", [{"id": 1}]), client_id=2, spec=PULL_REQUESTS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert load_jsonl(database, path, client_id=1, spec=PULL_REQUESTS).inserted == 20_000
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 40, "100 MB of rows went through"


def test_creating_the_tables_leaves_existing_ones_alone(database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("DROP TABLE users"))
        connection.execute(text("CREATE TABLE users (anything text)"))
        connection.execute(text("DROP TABLE issues"))

    def create() -> None:
        with database.begin() as connection:
            create_tables(connection)

    with ThreadPoolExecutor(3) as pool:
        for created in [pool.submit(create) for _ in range(3)]:
            created.result()
    with database.connect() as connection:
        columns = connection.execute(
            text("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema='public'")
        ).all()
    assert [column for table, column in columns if table == "users"] == ["anything"]
    assert {"id", "client_id", "summary"} <= {column for table, column in columns if table == "issues"}
