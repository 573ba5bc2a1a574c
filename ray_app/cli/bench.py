"""``rowbeam bench``: measure this machine and its providers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ray_app.cli.output import AsJson


def bench(
    part: Annotated[
        str,
        typer.Argument(
            help="all: the table, every part against its peer; providers: each configured provider;"
            " or a part alone: encoder, gpu, bulk, search, http, scale, million."
        ),
    ] = "all",
    rounds: Annotated[int, typer.Option(min=1, help="Times each measurement is repeated.")] = 3,
    texts: Annotated[
        list[Path] | None,
        typer.Option(help="JSON lines with title and body (.gz allowed); default: generated texts."),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=2, help="Texts to embed, of providers and encoders.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Measure speed, latency, cost and agreement, and save the record under ROWBEAM_HOME/benchmarks.

    A router starts from what `providers` measured; what became worse by a fifth is warned of. The exit
    code is 1 when a target is missed. More options: python -m jobs.benchmark PART --help.
    """
    from ray_app.settings import Settings, child_environment
    from ray_app.stack.processes import run_child

    # In a process of its own: benchmarks belong to jobs, which this package does not import.
    command = [sys.executable, "-m", "jobs.benchmark", part, "--rounds", str(rounds)]
    command += ["--texts", *map(str, texts)] if texts else []
    command += ["--count", str(count)] if count else []
    command += ["--json"] if as_json else []
    return run_child(command, child_environment(Settings.from_env()))
