"""Admission under any order of events, against what it promises."""

from __future__ import annotations

import heapq
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from ray_app.errors import Overloaded, RateLimited
from ray_app.serving.admission import GRACE, Ticket
from ray_app.serving.port import Load
from ray_app.tenants import Tenant
from tests.unit.test_admission import World, tenant

REQUESTS, TOKENS, SLOTS = 12, 120, 3
QUEUE, MOST_REQUESTS = 100, 6
PLACES = [
    tenant(n, requests_per_minute=REQUESTS, tokens_per_minute=TOKENS, concurrent_requests=SLOTS)
    for n in (1, 2, 3)
]
sizes = st.integers(0, 60)


class Held:
    """A request under way, with a hand on the end of it."""

    def __init__(self, world: World, who: Tenant, tokens: int) -> None:
        self.who, self.tokens, self.settled = who, tokens, False
        self._manager = world.admission.admit(who, tokens)
        self.ticket: Ticket = self._manager.__enter__()

    def end(self, error: BaseException | None = None) -> None:
        kind = type(error) if error else None
        assert not self._manager.__exit__(kind, error, None), "the error goes on"


class Admitting(RuleBasedStateMachine):
    """Requests come, grow, shrink, end, fail and come back while time goes on."""

    held = Bundle("held")

    @initialize(speed=st.sampled_from([0.0, 5.0, 500.0]))
    def start(self, speed: float) -> None:
        self.world = World(max_queued_tokens=QUEUE, max_requests=MOST_REQUESTS)
        self.world.load = Load(0, speed)
        self.under_way: list[Held] = []
        #: Time, tenant, tokens of everything let in and not given back.
        self.log: list[tuple[float, Held]] = []

    @rule(target=held, who=st.sampled_from(PLACES), tokens=sizes)
    def come(self, who: Tenant, tokens: int) -> Held | None:
        try:
            request = Held(self.world, who, tokens)
        except (RateLimited, Overloaded):
            return None
        self.under_way.append(request)
        self.log.append((self.world.now, request))
        return request

    @rule(request=held, tokens=sizes)
    def settle(self, request: Held | None, tokens: int) -> None:
        if request in self.under_way and tokens <= request.tokens:
            request.ticket.settle(tokens)
            request.tokens, request.settled = tokens, True

    @rule(request=consumes(held), fails=st.booleans())
    def end(self, request: Held | None, fails: bool) -> None:
        if request is None:
            return
        self.under_way.remove(request)
        if fails and not request.settled:
            request.tokens = 0
        request.end(ConnectionError("the client hung up") if fails else None)

    @rule(seconds=st.sampled_from([0.001, 0.3, 1.0, GRACE, 20.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.now += seconds

    @invariant()
    def nobody_is_beyond_a_limit(self) -> None:
        if not hasattr(self, "world"):
            return
        assert len(self.under_way) <= MOST_REQUESTS
        assert max(Counter(request.who.name for request in self.under_way).values(), default=0) <= SLOTS
        assert sum(request.tokens for request in self.under_way) <= QUEUE

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self._check_windows()
        for request in self.under_way:
            request.end()
        self.world.now += 3600
        assert [self._room_of_a_fresh_start(who) for who in PLACES] == [REQUESTS] * 3
        self.world.now += 3600
        self.world.once(PLACES[0])
        self.world.once(PLACES[0])
        assert self.world.admission.tenants_remembered <= 2

    def _check_windows(self) -> None:
        for start in range(len(self.log)):
            for who in PLACES:
                window = [(at, request) for at, request in self.log[start:] if request.who is who]
                if not window:
                    continue
                share = 1 + (window[-1][0] - window[0][0] + GRACE) / 60
                assert len(window) <= REQUESTS * share + 1e-6
                assert sum(request.tokens for _, request in window) <= TOKENS * share + 1e-6

    def _room_of_a_fresh_start(self, who: Tenant) -> int:
        """How many requests of a tenth of its tokens it gets at once; all its limits are unused again."""
        admitted = 0
        while admitted <= REQUESTS:
            try:
                self.world.once(who, TOKENS // REQUESTS)
            except RateLimited:
                break
            admitted += 1
        return admitted


TestAdmitting = Admitting.TestCase
TestAdmitting.settings = settings(max_examples=150, stateful_step_count=40)

arrivals = st.lists(
    st.tuples(st.floats(0, 20), st.integers(0, 200), st.integers(0, 200), st.floats(0, GRACE * 0.9)),
    min_size=1,
    max_size=40,
    # A place is known again by its size; of two requests of one size the earlier one back gets in.
    unique_by=lambda arrival: arrival[1],
)


@given(arrivals)
def test_whoever_waits_as_long_as_told_is_let_in(plan: list[tuple[float, int, int, float]]) -> None:
    """Sizes above a minute's worth, true sizes that differ and clients that come a little late included."""
    world = World()
    acme = tenant(requests_per_minute=30, tokens_per_minute=100)
    # When, a serial, estimated and true size, how late it comes back, whether it was told to.
    events: list[tuple[float, int, int, int, float, bool]] = []
    at = world.now
    for serial, (gap, size, true_size, late) in enumerate(plan):
        at += gap
        heapq.heappush(events, (at, serial, size, true_size, late, False))
    while events:
        world.now, serial, size, true_size, late, obeyed = heapq.heappop(events)
        try:
            with world.admission.admit(acme, size) as ticket:
                ticket.settle(true_size)
        except RateLimited as refused:
            assert not obeyed, "it came back when it was told to"
            kept = refused.retry_after <= 120
            back = world.now + refused.retry_after + (late if kept else 0)
            heapq.heappush(events, (back, serial, size, true_size, late, kept))


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=30),
    st.integers(1, 4),
    st.sampled_from(["slots", "requests"]),
)
def test_where_requests_take_equally_long_the_wait_for_a_slot_is_true(
    gaps: list[float], slots: int, limit: str
) -> None:
    """Each comes back once at the most, however many wait."""
    world = World(max_requests=slots) if limit == "requests" else World()
    acme = tenant(concurrent_requests=slots if limit == "slots" else 64)
    took = 4.0
    for _ in range(3):
        held = Held(world, acme, 0)
        world.now += took
        held.end()
    # When, whether it comes after those that end, a serial; what ends, or the size that it is known by.
    events: list[tuple[float, int, int, Held | None, bool]] = []
    at = world.now
    for serial, gap in enumerate(gaps):
        at += gap
        heapq.heappush(events, (at, 1, serial, None, False))
    while events:
        world.now, _, serial, ending, obeyed = heapq.heappop(events)
        if ending is not None:
            ending.end()
            continue
        try:
            request = Held(world, acme, serial)
        except (RateLimited, Overloaded) as refused:
            assert not obeyed, "it came back when it was told to"
            heapq.heappush(events, (world.now + refused.retry_after, 1, serial, None, True))
            continue
        heapq.heappush(events, (world.now + took, 0, serial, request, False))


@given(st.lists(st.tuples(st.sampled_from(PLACES), st.integers(0, 150), st.integers(0, 150)), max_size=40))
def test_every_token_is_charged_or_given_back(plan: list[tuple[Tenant, int, int]]) -> None:
    world = World()
    charged: Counter[str] = Counter()
    for who, size, true_size in plan:
        try:
            with world.admission.admit(who, size) as ticket:
                ticket.settle(true_size)
        except RateLimited:
            # Its place is given up and nothing else is: the time for that would refill the bucket.
            return
        charged[who.name] += true_size
    for who in PLACES:
        left = TOKENS - charged[who.name]
        try:
            world.once(who, TOKENS)
            wait = 0.0
        except RateLimited as refused:
            wait = refused.retry_after
        used = sum(who is one for one, _, _ in plan)
        for_requests = max(0, used + 1 - REQUESTS) * 60 / REQUESTS
        assert abs(wait - max(for_requests, (TOKENS - left) * 60 / TOKENS)) < 1e-3


steps = st.lists(st.tuples(st.booleans(), st.integers(0, 150), st.floats(0, 10)), max_size=60)


@given(steps)
def test_what_one_tenant_does_changes_nothing_for_another(plan: list[tuple[bool, int, float]]) -> None:
    def answers(*, with_neighbour: bool) -> list[float]:
        world, waits = World(), []
        for neighbour, size, gap in plan:
            world.now += gap
            if neighbour and not with_neighbour:
                continue
            try:
                world.once(PLACES[1] if neighbour else PLACES[0], size)
                wait = 0.0
            except RateLimited as refused:
                wait = refused.retry_after
            if not neighbour:
                waits.append(wait)
        return waits

    assert answers(with_neighbour=True) == answers(with_neighbour=False)
