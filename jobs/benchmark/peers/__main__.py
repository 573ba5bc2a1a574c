"""``python -m jobs.benchmark.peers``: install the servers that the benchmark compares with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.benchmark.peers import infinity
from ray_app.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m jobs.benchmark.peers", description=infinity.__doc__)
    parser.add_argument("--into", type=Path, help="folder of the venv; default: ROWBEAM_HOME/peers/infinity")
    args = parser.parse_args(argv)
    folder = args.into or infinity.default_folder(Settings.from_env().home)
    infinity.install(folder.absolute())
    print(f"Installed {infinity.NAME} in {folder}.")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
