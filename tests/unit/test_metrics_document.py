"""The document of the metrics and their declarations say the same."""

from __future__ import annotations

from ray_app.metrics.declared import DECLARED
from tests.support.metrics_document import document


def test_every_metric_is_documented_as_it_is_declared() -> None:
    declared = {
        f"ray_{instrument.name}": (instrument.kind, set(instrument.labels)) for instrument in DECLARED
    }
    assert {name: (row.kind, set(row.labels)) for name, row in document().items()} == declared
