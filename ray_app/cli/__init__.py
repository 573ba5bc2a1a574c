"""The rowbeam command line: a thin layer over ``ray_app.app.Rowbeam``."""

from __future__ import annotations

import sys

from ray_app.leaving import leave


def main() -> None:
    """Run the command that ``sys.argv`` names and end the process with its exit code."""
    from ray_app.cli.app import run

    leave(run(sys.argv[1:]))
