"""What ``rowbeam reconcile`` shows."""

from __future__ import annotations

from ray_app.cli.output import console, to_json
from ray_app.cli.reconcile import render
from ray_app.reconciling.drift import Kind
from ray_app.reconciling.reports import DriftCount, Finding, ReconcileReport


def shown(report: ReconcileReport) -> str:
    page = console()
    with page.capture() as captured:
        page.print(render(report))
    return captured.get()


def report(*found: DriftCount, repaired: int = 0, remaining: int = 0, recent: int = 0) -> ReconcileReport:
    examples = tuple(
        Finding(item.table, item.vector_type, item.kind, str(number)) for item in found for number in range(5)
    )
    return ReconcileReport(
        tenant="acme",
        rows=1200,
        ledger_points=1199,
        stored_points=1198,
        found=found,
        examples=examples,
        recent=recent,
        repaired=repaired,
        remaining=remaining,
        jobs=(),
        seconds=0.5,
    )


MISSING = DriftCount("issues", "content", Kind.MISSING, 7)
STALE = DriftCount("issues", "content", Kind.STALE, 2)


def test_nothing_found() -> None:
    text = shown(report(recent=3))
    assert "1,200 rows, 1,199 points by the ledger, 1,198 in the store" in text
    assert "All in step." in text
    assert "3 vectors without a row are too young to judge." in text


def test_findings_with_examples_and_what_to_do() -> None:
    text = shown(report(MISSING, STALE, remaining=9))
    assert "0, 1, 2" in text
    assert "missing" in text
    assert "--repair" in text


def test_what_was_mended() -> None:
    assert "9 mended, 0 left." in shown(report(MISSING, STALE, repaired=9))


def test_as_json() -> None:
    document = to_json(report(MISSING, STALE, repaired=9))
    assert document["drift"] == 9
    assert (document["clean"], document["in_step"]) == (False, True)
    assert document["found"][0] == {
        "table": "issues",
        "vector_type": "content",
        "kind": "missing",
        "count": 7,
    }
