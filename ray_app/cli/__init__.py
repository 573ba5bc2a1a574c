"""The rowbeam command line: a thin layer over ``ray_app.app.Rowbeam``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that ``sys.argv`` names and end the process with its exit code."""
    from ray_app.cli.app import run

    sys.exit(run(sys.argv[1:]))
