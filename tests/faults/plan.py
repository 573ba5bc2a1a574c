"""Which fault falls where in which run: a pure function of the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import cycle
from random import Random
from typing import Final


class Kind(StrEnum):
    """What breaks."""

    DRIVER = "driver"
    ENCODER = "encoder"
    WRITER = "writer"
    PROGRESS = "progress"
    OWNER = "owner"
    POSTGRES = "postgres"
    STORE = "store"
    DISK = "disk"
    GATEWAY = "gateway"
    REPLICA = "replica"
    ROUTER = "router"
    NODE = "node"
    CLOCK = "clock"


#: Kinds that break while rows are pushed over HTTP. All others break a job, and the clock either.
PUSHED: Final = frozenset({Kind.REPLICA, Kind.ROUTER})
#: Kinds whose runs take most of a minute, so that they come no oftener than they must.
SLOW: Final = frozenset({Kind.STORE, Kind.NODE, Kind.CLOCK})
#: Runs of each kind in a plan that has room for them.
MINIMUM: Final = 2
#: Seconds for which the vector store stands still.
STORE_SECONDS: Final = 30.0
#: Hours by which the clock is set forward or back, at least and at most.
CLOCK_HOURS: Final = (1.0, 12.0)
#: Shares of the work between which faults fall.
EARLIEST: Final = 0.02
LATEST: Final = 0.85


@dataclass(frozen=True)
class Run:
    """One fault. ``python -m tests.faults --seed SEED --from NUMBER --to NUMBER`` repeats it."""

    number: int
    kind: Kind
    #: Share of the rows that are in the ledger when the fault falls.
    moment: float
    #: Seconds more, so that faults do not fall on a commit.
    delay: float
    #: Seconds an outage lasts.
    outage: float
    #: Decides the rows and what is left to chance.
    seed: str
    #: Hours by which a step sets the clock forward, or back where they are less than nothing.
    step: float = 0.0
    #: Whether a step of the clock falls among pushes; else into a job.
    pushed: bool = False

    @property
    def rng(self) -> Random:
        return Random(self.seed)

    def again(self, attempt: int) -> Run:
        """The same fault at another moment, an earlier one each time: this one fell outside of the work."""
        rng = Random(f"{self.seed}/{attempt}")
        moment = rng.uniform(EARLIEST, max(self.moment * 0.7, EARLIEST))
        return replace(self, moment=moment, delay=rng.uniform(0, 0.1), seed=f"{self.seed}/{attempt}")


def plan(seed: int, runs: int, kinds: Iterable[Kind] = Kind) -> tuple[Run, ...]:
    """``runs`` runs, numbered from 1. The same arguments always give the same plan.

    Each kind comes ``MINIMUM`` times where there is room, else as evenly as can be. The moments of a
    kind's runs lie in equal slices of the work, one in each. Raises ValueError without kinds.
    """
    wanted = list(dict.fromkeys(kinds))
    if not wanted:
        raise ValueError("A plan needs at least one kind.")
    rng = Random(f"rowbeam-faults/{seed}")
    dealt = _deal(rng, runs, wanted)
    slices = {kind: _moments(rng, count) for kind, count in sorted(Counter(dealt).items())}
    planned = [_run(seed, number, kind, slices[kind].pop()) for number, kind in enumerate(dealt, start=1)]
    return tuple(_with_steps(rng, planned))


def _deal(rng: Random, runs: int, kinds: Sequence[Kind]) -> list[Kind]:
    """Kinds in a random order, each as often as it is its turn."""
    first = [kind for _ in range(MINIMUM) for kind in kinds]
    often = [kind for kind in kinds if kind not in SLOW] or list(kinds)
    while len(first) < runs:
        first += often
    dealt = first[:runs]
    rng.shuffle(dealt)
    return dealt


def _moments(rng: Random, count: int) -> list[float]:
    width = (LATEST - EARLIEST) / count
    moments = [EARLIEST + (place + rng.random()) * width for place in range(count)]
    rng.shuffle(moments)
    return moments


def _run(seed: int, number: int, kind: Kind, moment: float) -> Run:
    own = f"rowbeam-faults/{seed}/{number}"
    rng = Random(f"{own}/details")
    return Run(
        number=number,
        kind=kind,
        moment=moment,
        delay=rng.uniform(0, 0.3),
        outage=STORE_SECONDS if kind is Kind.STORE else rng.uniform(0.5, 6.0),
        seed=own,
    )


def _with_steps(rng: Random, planned: Sequence[Run]) -> Iterator[Run]:
    """Steps of the clock: forward and back in turn, in jobs and among pushes in turn."""
    # Two runs are enough for each way of either, and four for all of them together.
    ways = [(1, False), (-1, True), (-1, False), (1, True)]
    turn = cycle(ways if rng.random() < 0.5 else ways[2:] + ways[:2])
    for run in planned:
        if run.kind is Kind.CLOCK:
            sign, pushed = next(turn)
            hours = Random(f"{run.seed}/step").uniform(*CLOCK_HOURS)
            yield replace(run, step=sign * hours, pushed=pushed)
        else:
            yield run
