"""The parts of the table: what each is to offer, their common options, and running all of them.

A part is a module of this package with a docstring, ``add_arguments(parser)`` and ``lines(args)``.
``args`` holds what the part added and the common options:

rounds   times each pair of competitors is run, in turns
texts    JSON-lines files of texts, or None for generated ones: see ``jobs.benchmark.texts``
model    ROWBEAM_LOCAL_MODEL of what is measured

``lines`` yields a line as soon as it is measured and says what it is doing with ``report.say``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol, cast

from jobs.benchmark.lines import ROUNDS, Line
from jobs.benchmark.report import say
from ray_app.stack.processes import run_child

#: In the order of the table.
PARTS: Final = ("encoder", "gpu", "bulk", "search", "http", "scale", "million")


class Part(Protocol):
    """What a part's module offers; its docstring is its help."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options that only this part has, each with a default that ``all`` uses."""

    def lines(self, args: argparse.Namespace) -> Iterator[Line]:
        """Measure; one line as soon as it is known."""


def load_part(name: str) -> Part:
    return cast(Part, import_module(f"jobs.benchmark.{name}"))


def add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of whatever measures."""
    parser.add_argument("--rounds", type=_positive, default=ROUNDS, help="times each is measured, in turns")
    parser.add_argument(
        "--texts",
        type=Path,
        nargs="+",
        help="JSON lines with title and body (.gz allowed); default: generated texts",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every part of the table."""
    add_measuring_arguments(parser)
    parser.add_argument("--model", default="bundled", help="ROWBEAM_LOCAL_MODEL of what is measured")
    parser.add_argument("--out", type=Path, help="where the JSON record goes; default: under ROWBEAM_HOME")
    parser.add_argument("--plot", type=Path, help="where the plot goes; default: beside the record, as .png")


def run_in_children(names: Sequence[str], args: argparse.Namespace, failed: list[str]) -> Iterator[Line]:
    """Run each part in a process of its own, whose threads and memory end with it.

    A part that breaks is named in ``failed``, its error is on standard error, and the others go on.
    """
    with tempfile.TemporaryDirectory(prefix="rowbeam-bench-") as folder:
        for name in names:
            out = Path(folder) / f"{name}.json"
            command = [sys.executable, "-m", "jobs.benchmark", name, "--out", str(out)]
            command += ["--rounds", str(args.rounds), "--model", args.model]
            command += ["--texts", *map(str, args.texts)] if args.texts else []
            say(f"== {name}")
            run_child([*command, "--record-only"])
            if not out.exists():  # it was killed, or its command line is wrong
                failed.append(name)
                continue
            record = json.loads(out.read_text(encoding="utf-8"))
            failed += record["failed_parts"]
            yield from map(Line.from_record, record["lines"])


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
