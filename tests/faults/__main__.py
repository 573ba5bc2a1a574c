"""``python -m tests.faults``: faults in mid-work, one after the other, and what became of the rows.

Exit status: 0 when every run ended with nothing lost, duplicated or leaked, otherwise 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
import traceback
from collections.abc import Sequence

from ray_app.leaving import leave
from tests.faults.plan import Kind, Run, plan

RUNS = 50


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="which plan (1)")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"how many runs it has ({RUNS})")
    parser.add_argument("--kind", action="append", choices=[str(kind) for kind in Kind], help="only these")
    parser.add_argument("--from", type=int, default=1, dest="first", metavar="N", help="begin with run N")
    parser.add_argument("--to", type=int, metavar="N", help="end with run N")
    args = parser.parse_args(argv)

    # Ray reads these when it is imported; a run must not depend on what the shell happens to hold.
    for name in [name for name in os.environ if name.startswith(("ROWBEAM_", "RAY_"))]:
        del os.environ[name]
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "HF_HUB_OFFLINE": "1"}
    # Work is done in threads, and Ray says of each connection made in one that it takes no signals there.
    logging.getLogger("ray._private.worker").addFilter(lambda record: "SIGTERM" not in record.getMessage())
    from tests.faults.running import Outcome, perform
    from tests.faults.summary import summary
    from tests.faults.world import World, new_world

    def one(world: World, run: Run) -> Outcome:
        began = time.monotonic()
        try:
            return perform(world, run)
        except Exception as error:  # noqa: BLE001 - the summary counts it, and the other runs go on
            traceback.print_exc()
            problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            return Outcome(run, 0, 0, 0, 0, 0, 0, 0, time.monotonic() - began, problem)

    outcomes = []
    with new_world() as world:
        kinds = [Kind(name) for name in args.kind or Kind]
        if world.disk is None and Kind.DISK in kinds:
            print("No disk is filled: mounting a small file system takes root.")
            kinds.remove(Kind.DISK)
        for run in plan(args.seed, args.runs, kinds)[args.first - 1 : args.to]:
            outcome = one(world, run)
            outcomes.append(outcome)
            mark = "exact" if outcome.is_exact else f"NOT EXACT: {outcome.problem}"
            print(
                f"{run.number:3} {run.kind:9} at {run.moment:4.0%} of {outcome.rows:5} rows"
                f" {outcome.resumes} resumed {outcome.seconds:5.1f} s  {mark}",
                flush=True,
            )
    print(f"\n{summary(args.seed, outcomes)}")
    return 0 if all(outcome.is_exact for outcome in outcomes) else 1


if __name__ == "__main__":
    leave(main())
