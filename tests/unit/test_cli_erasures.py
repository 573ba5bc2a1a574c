"""How erasures are shown, and how a record is checked where there is no ledger."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from ray_app.cli import rendering_erasures
from ray_app.cli.app import run
from ray_app.offboarding.records import canonical
from ray_app.offboarding.reports import ErasureReport
from tests.unit.test_erasure_records import DOCUMENT, ERASURE, KEY, NOON, OTHER, SIGNED

REPORT = ErasureReport("acme", str(ERASURE.incarnation), 1200, 3, 0, 0, NOON, SIGNED)


def text_of(renderable: RenderableType) -> str:
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_a_removal_and_what_is_left() -> None:
    shown = text_of(rendering_erasures.erasure(REPORT))
    for told in ("1,200 points", "0 points and 0 ledger", f"erasure record {ERASURE.incarnation}"):
        assert told in shown
    left = replace(REPORT, points_left=2, record=None, second_round_at=None)
    assert "2 points and 0 ledger" in text_of(rendering_erasures.erasure(left))
    assert "Signed record" not in text_of(rendering_erasures.erasure(left))


def test_a_list_of_removals() -> None:
    stages = (ERASURE, replace(ERASURE, final_at=NOON), replace(ERASURE, clean_at=None))
    shown = text_of(rendering_erasures.erasures(stages))
    for told in ("1,201", "pooled", "second round due", "final since", "being erased"):
        assert told in shown
    assert "No tenant" in text_of(rendering_erasures.erasures([]))


def test_a_record_is_checked_without_a_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, key, other = (tmp_path / name for name in ("record.json", "key.pem", "other.pem"))
    record.write_bytes(DOCUMENT + b"\n")
    key.write_text(KEY.public_key)
    other.write_text(OTHER.public_key)
    check = ["tenant", "erasure", "check", str(record), "--key"]
    assert run([*check, str(key)]) == 0
    shown = capsys.readouterr().out
    for told in ("as it was signed", "first round", "1,201 points, 7 ledger rows", "pooled scheduled"):
        assert told in shown
    assert run([*check, str(key), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == SIGNED["record"]

    assert run([*check, str(other)]) == 1
    assert "The signature is not one of this record" in capsys.readouterr().err
    record.write_bytes(canonical(SIGNED).replace(b"1200", b"1201"))
    assert run([*check, str(key), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "InvalidErasureRecord"
    assert run([*check, str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err
