"""The benchmarks' command line."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.benchmark import crowd, memory, realtime


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m jobs.benchmark")
    commands = parser.add_subparsers(required=True)
    for module in (memory, realtime, crowd):
        summary = (module.__doc__ or "").splitlines()[0]
        command = commands.add_parser(
            module.__name__.rpartition(".")[2], help=summary, description=module.__doc__
        )
        command.add_argument("--out", type=Path, help="write the record as JSON, too")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    record: dict[str, Any] = args.run(args)
    if args.out is not None:
        dated = {"measured": time.strftime("%Y-%m-%d"), **record}
        args.out.write_text(json.dumps(dated, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
