"""Records of erasures: signed, and worthless when any byte of them or the key is another."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.errors import InvalidErasureRecord
from ray_app.offboarding.records import SigningKey, canonical, describe, verify
from ray_app.offboarding.reports import Erased, Erasure, Round, Stage
from ray_app.tenants import Placement

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
KEY, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(32))


def looked(points: int, rows: int = 0, nameless: int = 0, *, erased: bool = True) -> Round:
    return Round(NOON, {"pooled": {"space": points}}, nameless, {"jobs": rows}, erased)


ERASURE = Erasure(
    incarnation=UUID(int=7),
    placements=(Placement.POOLED,),
    rounds=(looked(1200, 7, 1), looked(0)),
    requested_at=NOON,
    clean_at=NOON,
    due_at=NOON + timedelta(days=1),
    final_at=None,
    record=None,
)
SIGNED = KEY.sign(describe(ERASURE, timedelta(days=1)))
DOCUMENT = canonical(SIGNED)


def test_a_record_is_what_was_signed() -> None:
    record = verify(DOCUMENT, KEY.public_key)
    assert record == verify(DOCUMENT + b"\n", KEY.public_key) == SIGNED["record"]
    assert record["erased"] == {
        "points": {"pooled": {"space": 1200}},
        "nameless_points": 1,
        "ledger_rows": {"jobs": 7},
    }
    assert record["left"] == {"points": 0, "ledger_rows": 0}


@given(st.integers(0, len(DOCUMENT) - 1), st.integers(1, 255))
def test_a_record_with_any_byte_changed_is_refused(place: int, change: int) -> None:
    forged = bytearray(DOCUMENT)
    forged[place] ^= change
    with pytest.raises(InvalidErasureRecord):
        verify(bytes(forged), KEY.public_key)


@given(st.integers(0, len(DOCUMENT)), st.binary(min_size=1, max_size=3))
def test_a_record_with_anything_put_in_is_refused(place: int, added: bytes) -> None:
    if (place, added) == (len(DOCUMENT), b"\n"):
        return
    with pytest.raises(InvalidErasureRecord):
        verify(DOCUMENT[:place] + added + DOCUMENT[place:], KEY.public_key)


@given(
    st.binary()
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_anything_else_is_refused_too(document: bytes) -> None:
    with pytest.raises(InvalidErasureRecord):
        verify(document, KEY.public_key)


def test_another_key_and_what_is_no_key_are_refused() -> None:
    for key in (OTHER.public_key, "", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(InvalidErasureRecord):
            verify(DOCUMENT, key)


def test_another_kind_of_document_is_refused_even_where_it_is_signed() -> None:
    for record in ({**SIGNED["record"], "format": "rowbeam-erasure/9"}, {"format": None}):
        with pytest.raises(InvalidErasureRecord, match="not known"):
            verify(canonical(KEY.sign(record)), KEY.public_key)


def test_a_printed_record_is_told_how_to_get_back_into_form() -> None:
    with pytest.raises(InvalidErasureRecord, match="jq -cjS"):
        verify(json.dumps(SIGNED, indent=2).encode(), KEY.public_key)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
def test_openssl_agrees(tmp_path: Path) -> None:
    """Nobody has to believe our own check."""
    for name, content in {
        "key.pem": KEY.public_key.encode(),
        "record": canonical(SIGNED["record"]),
        "signature": bytes.fromhex(SIGNED["signature"]),
    }.items():
        (tmp_path / name).write_bytes(content)
    command = "openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in record -sigfile signature"
    done = subprocess.run(command.split(), check=False, cwd=tmp_path, capture_output=True, text=True)
    assert "Signature Verified Successfully" in done.stdout


def test_the_key_does_not_show() -> None:
    assert bytes(range(32)).hex() not in repr(KEY) + repr(vars(KEY)) + KEY.public_key


@pytest.mark.parametrize(
    ("rounds", "points", "rows"),
    [
        ((looked(100, 5), looked(0)), 100, 5),
        ((looked(100, 5, erased=False), looked(100, 5), looked(0)), 100, 5),
        ((looked(100, 5, erased=False), looked(40, 5), looked(0)), 100, 5),
        ((looked(100, 5, 2, erased=False), looked(0, 0, erased=False), looked(0)), 102, 5),
        ((looked(3), looked(0), looked(2, 1), looked(0)), 5, 1),
        ((looked(3, erased=False),), 0, 0),
    ],
)
def test_what_was_erased_is_counted_once_however_often_it_was_found(
    rounds: tuple[Round, ...], points: int, rows: int
) -> None:
    erased = Erased.by(rounds)
    assert (erased.points_total, erased.rows_total) == (points, rows)


def test_a_round_survives_the_ledger() -> None:
    made = looked(3, 4, 5)
    assert Round.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_stages() -> None:
    def stage(**changes: Any) -> Stage:
        return Erasure(**{**vars(ERASURE), **changes}).stage

    assert [stage(clean_at=None), stage(), stage(final_at=NOON)] == list(Stage)
