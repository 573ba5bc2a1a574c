"""The benchmarks' command line: the table, one part of it, or one of the studies."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from jobs.benchmark import crowd, memory, providers, realtime, report
from jobs.benchmark.lines import Line
from jobs.benchmark.parts import PARTS, add_common_arguments, load_part, run_in_children
from jobs.benchmark.plot import draw
from ray_app.cli.output import FAILED, emit_json, note, show, show_error
from ray_app.errors import RowbeamError
from ray_app.leaving import leave
from ray_app.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; its exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    whole = not given or (given[0].startswith("-") and given[0] not in ("-h", "--help"))
    args = _parser().parse_args(["all", *given] if whole else given)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    # Without folders: the record is for others, whose files lie elsewhere.
    words = [Path(word).name if os.sep in word else word for word in given]
    args.command = shlex.join(["python", "-m", "jobs.benchmark", *words])
    try:
        status: int = args.run(args)
    except RowbeamError as error:
        show_error(error, as_json=getattr(args, "json", False))
        return FAILED
    return status


def _end(number: int, _frame: FrameType | None) -> None:
    """End in order: what was started is stopped on the way out, and no second signal cuts that short."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmark", description="Without a command: the whole table, every part of it."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    whole = commands.add_parser("all", help="every part of the table")
    add_common_arguments(whole)
    whole.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="only these")
    whole.set_defaults(run=_run_all)
    for name in PARTS:
        part = load_part(name)
        command = commands.add_parser(name, help=_first_line(part.__doc__), description=part.__doc__)
        add_common_arguments(command)
        command.add_argument("--record-only", action="store_true", help=argparse.SUPPRESS)
        part.add_arguments(command)
        command.set_defaults(run=_run_part, part=name)
    command = commands.add_parser(
        "providers", help=_first_line(providers.__doc__), description=providers.__doc__
    )
    providers.add_arguments(command)
    command.set_defaults(run=providers.run)
    for module in (memory, realtime, crowd):
        name = module.__name__.rpartition(".")[2]
        command = commands.add_parser(name, help=_first_line(module.__doc__), description=module.__doc__)
        command.add_argument("--out", type=Path, help="write the record as JSON, too")
        module.add_arguments(command)
        command.set_defaults(run=_run_study, study=module.run)
    return parser


def _run_all(args: argparse.Namespace) -> int:
    failed: list[str] = []
    lines = _collect(run_in_children(args.parts, args, failed))
    return _publish(lines, args, "", failed)


def _run_part(args: argparse.Namespace) -> int:
    measured = load_part(args.part).lines(args)
    if not args.record_only:
        return _publish(_collect(measured), args, f"-{args.part}")
    lines: list[Line] = []
    broken = [args.part]
    try:
        _collect(measured, lines)
        broken.clear()
    finally:
        # What was measured before a part broke took minutes, too.
        report.write_record(report.record(lines, command=args.command, failed=broken), args.out)
    return report.exit_status(lines)


def _run_study(args: argparse.Namespace) -> int:
    record: dict[str, Any] = args.study(args)
    if args.out is not None:
        report.write_record({"measured": time.strftime("%Y-%m-%d"), **record}, args.out)
    return 0


def _collect(measured: Iterable[Line], into: list[Line] | None = None) -> list[Line]:
    """The lines, each announced when it comes: the whole table takes many minutes."""
    lines = [] if into is None else into
    for line in measured:
        value = "" if line.value is None else f" {line.value:.3f} {line.unit}".rstrip()
        report.say(f"{line.what}, against {line.against}:{value} {line.verdict}")
        lines.append(line)
    return lines


def _publish(lines: list[Line], args: argparse.Namespace, suffix: str, failed: Sequence[str] = ()) -> int:
    stem = f"{time.strftime('%Y-%m-%dT%H%M%S')}{suffix}"
    out = args.out or Settings.from_env().home / "benchmarks" / f"{stem}.json"
    record = report.record(lines, command=args.command, failed=failed)
    report.write_record(record, out)
    drawn = draw(lines, args.plot or out.with_suffix(".png"))
    if args.json:
        emit_json(record)
    else:
        show(report.table(lines))
    for text in report.notes(lines):
        note(text, as_json=args.json)
    for name in failed:
        note(f"The part {name} broke; its error is above.", as_json=args.json)
    note(f"Record: {out}", as_json=args.json)
    note(drawn, as_json=args.json)
    return report.exit_status(lines, failed)


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0]


if __name__ == "__main__":
    leave(main())
