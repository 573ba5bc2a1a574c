"""A process that used Ray ends before its interpreter takes itself apart; what it said is not lost."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import atexit, sys
from ray_app.leaving import leave
{before}
atexit.register(lambda: print("taken apart"))
print("done", end=" ")
leave(3)
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [("", "done taken apart\n"), ("sys.modules['ray'] = sys", "done ")],
    ids=["without Ray", "with Ray"],
)
def test_the_exit_status_is_the_one_that_was_given(before: str, said: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(before=before)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, said, "")
