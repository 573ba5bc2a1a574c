"""What all runs came to, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.faults.running import Outcome


def summary(seed: int, outcomes: Sequence[Outcome]) -> str:
    """A few lines; the numbers of what must not be are added up over all runs."""
    kinds = Counter(str(outcome.run.kind) for outcome in outcomes)
    sent, counted = sum(item.sent for item in outcomes), sum(item.counted for item in outcomes)
    again = f"{(sent - counted) / counted:.1%} of {counted:,} texts" if counted else "no gateway's run"
    lines = [
        f"seed          {seed}",
        f"runs          {len(outcomes)}",
        "faults        " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())),
        f"rows          {sum(item.rows for item in outcomes):,}",
        f"resumed       {sum(item.resumes > 0 for item in outcomes)}",
        f"lost          {sum(item.lost for item in outcomes)}",
        f"duplicated    {sum(item.duplicated for item in outcomes)}",
        f"leaked        {sum(item.leaked for item in outcomes)}",
        f"re-embedded   {again}",
        f"not as wanted {sum(not item.is_exact for item in outcomes)}",
        f"minutes       {sum(item.seconds for item in outcomes) / 60:.1f}",
    ]
    return "\n".join(lines)
