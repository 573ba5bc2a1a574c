"""Reconcile a tenant: ``ray job submit -- python -m jobs.reconcile --tenant acme [--repair]``.

Prints the report as JSON. Exit status: 0 when all is in step at the end, 1 when not or when it could
not be found out, 2 for usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from ray_app.app import Rowbeam
from ray_app.cli.output import to_json
from ray_app.errors import RowbeamError
from ray_app.leaving import leave
from ray_app.logs import configure_logs
from ray_app.reconciling.operation import GRACE, SHARE, Repair
from ray_app.settings import Settings


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m jobs.reconcile", description=__doc__.splitlines()[0])
    parser.add_argument("--tenant", required=True)
    parser.add_argument("--tables", nargs="+", metavar="TABLE", help="default: all that have an index")
    parser.add_argument("--vector-type", nargs="+", metavar="TYPE", dest="vector_types")
    parser.add_argument("--repair", action="store_true", help="mend what is found")
    parser.add_argument("--force", action="store_true", help="mend more than --share allows")
    parser.add_argument("--share", type=float, default=SHARE, help="what a repair may change")
    parser.add_argument("--grace", type=float, default=GRACE, help="seconds until an orphan counts as one")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        settings = Settings.from_env()
        configure_logs(settings, loggers=("",))
        with Rowbeam.open(settings) as rowbeam:
            report = rowbeam.reconcile(
                args.tenant,
                tables=args.tables,
                vector_types=args.vector_types,
                repair=Repair(None if args.force else args.share) if args.repair else None,
                grace=args.grace,
            )
    except RowbeamError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(json.dumps(to_json(report), indent=2), flush=True)  # noqa: T201 - a job's log is its output
    return 0 if report.in_step else 1


if __name__ == "__main__":
    leave(main())
