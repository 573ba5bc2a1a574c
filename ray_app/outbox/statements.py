"""The outbox's SQL: its table, and for each platform table a trigger function and its triggers.

A trigger runs in the platform's own transaction: what is rolled back is never noted. It notes keys, and
compares nothing but the columns that some index of the table is made of. What fails in it, from a full disk
to a table that was dropped, is counted and logged by the server, and the platform's write goes on.

Triggers are by statement, with transition tables, so that a statement of 5,000 rows makes one insert.
Partitions and tables with children have triggers by row: a write to a partition would pass by a
statement's trigger of its parent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.dialects.postgresql.base import PGDialect

#: ``client_id`` of an entry that stands for a whole table: it was truncated. No client has it.
ALL_CLIENTS: Final = -1
#: The longest name Postgres takes.
_NAME_BYTES: Final = 63
_preparer = PGDialect().identifier_preparer  # type: ignore[no-untyped-call]

CREATE_SCHEMA: Final = "CREATE SCHEMA IF NOT EXISTS rowbeam;"
#: A table that is emptied all the time is vacuumed by number of rows, not by share.
CREATE: Final = """
CREATE TABLE IF NOT EXISTS rowbeam.outbox (
    client_id bigint NOT NULL,
    table_name text COLLATE "C" NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    record_id text,
    queued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    claim uuid,
    held_until timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    PRIMARY KEY (client_id, table_name, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 10000);
CREATE SEQUENCE IF NOT EXISTS rowbeam.outbox_missed;
"""
DROP: Final = """
DROP TABLE IF EXISTS rowbeam.outbox;
DROP SEQUENCE IF EXISTS rowbeam.outbox_missed;
"""


def _quote(name: str) -> str:
    """``name`` as an identifier of SQL."""
    return str(_preparer.quote_identifier(name))


def literal(value: str) -> str:
    """``value`` as a string of SQL."""
    if "\\" in value:
        return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + value.replace("'", "''") + "'"


@dataclass(frozen=True)
class Watched:
    """A platform table whose changes are noted."""

    #: The spec's name, and the table's in its schema.
    name: str
    db_schema: str
    primary_key: str
    tenant_column: str
    #: Columns that some index is made of, or that say whether a row is active; by name.
    columns: Sequence[str]
    #: Whether it has partitions or children, or is one.
    by_row: bool

    @property
    def target(self) -> str:
        return f"{_quote(self.db_schema)}.{_quote(self.name)}"

    @property
    def function(self) -> str:
        """The name of its trigger function."""
        name = f"outbox_{self.name}"
        if self.db_schema != "public" or len(name.encode()) > _NAME_BYTES:
            digest = hashlib.sha256(f"{self.db_schema}.{self.name}".encode()).hexdigest()[:8]
            name = f"{name.encode()[: _NAME_BYTES - 9].decode(errors='ignore')}_{digest}"
        return f"rowbeam.{_quote(name)}"

    @property
    def fingerprint(self) -> str:
        """Of its function and triggers; kept as the function's comment."""
        made = f"{self._body()}\n{self._triggers()}"
        return f"rowbeam outbox {hashlib.sha256(made.encode()).hexdigest()[:16]}"

    def install(self) -> str:
        """SQL that makes or remakes the function and the triggers."""
        return "\n".join(
            [
                f"CREATE OR REPLACE FUNCTION {self.function}() RETURNS trigger LANGUAGE plpgsql",
                "    SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'",
                f"AS $rowbeam$\n{self._body()}\n$rowbeam$;",
                f"REVOKE ALL ON FUNCTION {self.function}() FROM PUBLIC;",
                self._drop_triggers(),
                self._triggers(),
                f"COMMENT ON FUNCTION {self.function}() IS {literal(self.fingerprint)};",
            ]
        )

    def uninstall(self) -> str:
        """SQL that drops the triggers and the function."""
        return f"{self._drop_triggers()}\nDROP FUNCTION IF EXISTS {self.function}();"

    def _drop_triggers(self) -> str:
        names = ("insert", "update", "delete", "truncate", "row")
        return "\n".join(f"DROP TRIGGER IF EXISTS rowbeam_outbox_{name} ON {self.target};" for name in names)

    def _triggers(self) -> str:
        call = f"EXECUTE FUNCTION {self.function}();"

        def trigger(name: str, when: str, how: str) -> str:
            return f"CREATE TRIGGER rowbeam_outbox_{name} AFTER {when} ON {self.target} {how} {call}"

        truncate = trigger("truncate", "TRUNCATE", "FOR EACH STATEMENT")
        if self.by_row:
            return "\n".join([trigger("row", "INSERT OR UPDATE OR DELETE", "FOR EACH ROW"), truncate])
        new, old = "NEW TABLE AS new_rows", "OLD TABLE AS old_rows"
        return "\n".join(
            [
                trigger("insert", "INSERT", f"REFERENCING {new} FOR EACH STATEMENT"),
                trigger("update", "UPDATE", f"REFERENCING {old} {new} FOR EACH STATEMENT"),
                trigger("delete", "DELETE", f"REFERENCING {old} FOR EACH STATEMENT"),
                truncate,
            ]
        )

    def _body(self) -> str:
        return _BODY.format(
            truncate=self._insert(f"SELECT {ALL_CLIENTS}, {literal(self.name)}, NULL"),
            rows=self._by_row() if self.by_row else self._by_statement(),
        )

    def _insert(self, query: str) -> str:
        return f"INSERT INTO rowbeam.outbox (client_id, table_name, record_id) {query};"

    def _keys(self, source: str) -> str:
        tenant, key = _quote(self.tenant_column), _quote(self.primary_key)
        return f"SELECT {tenant}, {literal(self.name)}, {key}::text FROM {source} WHERE {tenant} IS NOT NULL"  # noqa: S608 - quoted names of the catalogue

    def _by_statement(self) -> str:
        tenant, key = _quote(self.tenant_column), _quote(self.primary_key)
        state = f"SELECT {tenant} AS client, {key}::text AS key, md5({self._state()}) AS state FROM"
        # A key that is in both, in one state, has not changed; one that is in one only has gone or come.
        changed = (
            f"SELECT client, {literal(self.name)}, key FROM"  # noqa: S608 - quoted names of the catalogue
            f" ({state} old_rows UNION ALL {state} new_rows) AS both_rows"
            " WHERE client IS NOT NULL GROUP BY client, key"
            " HAVING count(*) <> 2 OR min(state) <> max(state)"
        )
        return _CHOICE.format(
            insert=self._insert(self._keys("new_rows")),
            update=self._insert(changed),
            delete=self._insert(self._keys("old_rows")),
        )

    def _by_row(self) -> str:
        tenant, key = _quote(self.tenant_column), _quote(self.primary_key)
        new = self._insert(self._keys("(SELECT NEW.*) AS new_row"))
        old = self._insert(self._keys("(SELECT OLD.*) AS old_row"))
        same_key = f"OLD.{tenant} IS NOT DISTINCT FROM NEW.{tenant} AND OLD.{key} = NEW.{key}"
        same = f"{self._state('OLD.')} = {self._state('NEW.')}"
        update = f"IF NOT ({same_key}) THEN {old} {new} ELSIF NOT ({same}) THEN {new} END IF;"
        return _CHOICE.format(insert=new, update=update, delete=old)

    def _state(self, row: str = "") -> str:
        # As a record's text every type has one form, in which different values differ.
        return f"ROW({', '.join(row + _quote(name) for name in self.columns)})::text"


_BODY: Final = """\
BEGIN
    BEGIN
        IF TG_OP = 'TRUNCATE' THEN
            {truncate}
{rows}
        END IF;
    EXCEPTION WHEN OTHERS THEN
        -- The platform's write must not fail for this. What is missed here a sync of the whole table finds.
        RAISE LOG 'rowbeam missed a change of %: %', TG_TABLE_NAME, SQLSTATE;
        BEGIN
            PERFORM nextval('rowbeam.outbox_missed');
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END;
    RETURN NULL;
END;"""
_CHOICE: Final = """\
        ELSIF TG_OP = 'INSERT' THEN
            {insert}
        ELSIF TG_OP = 'UPDATE' THEN
            {update}
        ELSE
            {delete}"""


def grants(role: str) -> str:
    """What the role that drains the outbox needs, for an outbox that somebody else has made."""
    name = _quote(role)
    return "\n".join(
        [
            f"GRANT USAGE ON SCHEMA rowbeam TO {name};",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON rowbeam.outbox TO {name};",
            f"GRANT SELECT ON SEQUENCE rowbeam.outbox_missed TO {name};",
        ]
    )
