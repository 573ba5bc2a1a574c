"""Admission with a fake clock: who is let in, who is told to come back when, and that it is true."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from uuid import UUID

import pytest

from ray_app.errors import Overloaded, RateLimited, RowbeamError
from ray_app.serving.admission import GRACE, Admission, Ticket
from ray_app.serving.options import ServingOptions
from ray_app.serving.port import Load
from ray_app.tenants import Limits, Placement, Tenant, TenantState


class World:
    """A clock that moves when told to, and providers that report what they are told to."""

    def __init__(self, **options: int) -> None:
        self.now = 1000.0
        self.load = Load(0, 0.0)
        self._held: list[ExitStack] = []
        self.admission = Admission(ServingOptions(**options), lambda: self.load, clock=lambda: self.now)

    def enter(self, tenant: Tenant, tokens: int = 1) -> tuple[ExitStack, Ticket]:
        stack = ExitStack()
        # One that is forgotten would end.
        self._held.append(stack)
        return stack, stack.enter_context(self.admission.admit(tenant, tokens))

    def once(self, tenant: Tenant, tokens: int = 1) -> None:
        with self.admission.admit(tenant, tokens):
            pass

    def wait(self, tenant: Tenant, tokens: int = 1) -> float:
        """The wait it is told; it must be refused."""
        with pytest.raises((RateLimited, Overloaded)) as refused:
            self.once(tenant, tokens)
        assert refused.value.retry_after > 0
        return float(refused.value.retry_after)


def tenant(number: int = 1, **limits: int) -> Tenant:
    return Tenant(
        incarnation=UUID(int=number),
        name=f"tenant-{number}",
        client_id=number,
        placement=Placement.EMBEDDED,
        state=TenantState.ACTIVE,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        limits=Limits(**limits),
    )


def test_a_minutes_worth_of_requests_then_a_wait_that_is_true() -> None:
    world, acme = World(), tenant(requests_per_minute=3)
    for _ in range(3):
        world.once(acme)
    wait = world.wait(acme)
    assert wait == pytest.approx(20)
    world.now += wait - 0.01
    world.wait(acme)
    world.now += 0.01
    world.once(acme)


def test_tokens_are_limited_apart_from_requests() -> None:
    world, acme = World(), tenant(tokens_per_minute=600)
    world.once(acme, 500)
    with pytest.raises(RateLimited, match="used up") as refused:
        world.once(acme, 200)
    assert refused.value.retry_after == pytest.approx(10)
    assert refused.value.status == 429


def test_a_refused_request_takes_nothing_but_its_place() -> None:
    world, acme = World(), tenant(tokens_per_minute=600)
    world.once(acme, 500)
    world.wait(acme, 200)
    world.now += 10 + GRACE
    assert world.wait(acme, 251) == pytest.approx(0.1), "100 were left and 150 came since"


def test_refused_at_once_they_come_back_one_after_the_other_and_all_are_let_in() -> None:
    world, acme = World(), tenant(tokens_per_minute=600)
    world.once(acme, 600)
    waits = [world.wait(acme, 50) for _ in range(20)]
    assert waits == pytest.approx([5.0 * turn for turn in range(1, 21)])
    for before, wait in zip([0.0, *waits], waits, strict=False):
        world.now += wait - before
        world.once(acme, 50)


def test_who_comes_later_does_not_take_the_place_of_who_was_told_to_wait() -> None:
    world, acme = World(), tenant(tokens_per_minute=600)
    world.once(acme, 600)
    wait = world.wait(acme, 100)
    world.now += wait
    world.wait(acme, 99)
    world.once(acme, 100)


def test_a_place_is_kept_for_the_grace_time_only() -> None:
    world, acme = World(), tenant(tokens_per_minute=600)
    world.once(acme, 600)
    world.now += world.wait(acme, 100) + GRACE
    world.once(acme, 150)


@pytest.mark.parametrize("impatient", [0.05, 0.5])
def test_a_client_that_does_not_wait_gets_its_rate_and_no_more(impatient: float) -> None:
    world, acme = World(), tenant(tokens_per_minute=600)
    world.once(acme, 600)
    start, admitted = world.now, 0
    while world.now < start + 120:
        world.now += impatient
        try:
            world.once(acme, 30)
        except RateLimited:
            continue
        admitted += 30
    assert 0.9 * 1200 <= admitted <= 10 * (120 + GRACE)


def test_a_request_larger_than_the_bucket_is_let_in_when_it_is_full_and_paid_off() -> None:
    world, acme = World(), tenant(tokens_per_minute=600)
    world.once(acme, 60)
    wait = world.wait(acme, 1800)
    assert wait == pytest.approx(6)
    world.now += wait
    world.once(acme, 1800)
    assert world.wait(acme, 10) == pytest.approx(121), "1200 owed and 10 needed, at 10 a second"


def test_a_true_size_that_is_smaller_is_given_back_and_a_larger_one_owed() -> None:
    world, acme = World(), tenant(tokens_per_minute=600)
    with world.admission.admit(acme, 600) as ticket:
        ticket.settle(100)
    with world.admission.admit(acme, 500) as ticket:
        ticket.settle(560)
    assert world.wait(acme, 10) == pytest.approx(7)


def test_a_request_is_not_settled_after_its_end() -> None:
    world = World()
    stack, ticket = world.enter(tenant(), 10)
    with pytest.raises(ValueError, match="-1"):
        ticket.settle(-1)
    stack.close()
    with pytest.raises(ValueError, match="ended"):
        ticket.settle(5)
    with pytest.raises(ValueError, match="-5"):
        world.once(tenant(), -5)


@pytest.mark.parametrize("settled", [False, True])
def test_tokens_of_an_aborted_request_go_back_unless_work_was_done(settled: bool) -> None:
    world, acme = World(), tenant(tokens_per_minute=600)

    def aborted() -> None:
        with world.admission.admit(acme, 600) as ticket:
            if settled:
                ticket.settle(600)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        aborted()
    if settled:
        world.wait(acme, 600)
    else:
        world.once(acme, 600)


async def hang_up(world: World, acme: Tenant) -> None:
    async def request() -> None:
        with world.admission.admit(acme, 500):
            await asyncio.sleep(3600)

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    with pytest.raises(RateLimited, match="1 requests under way"):
        world.once(acme, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_client_that_hangs_up_frees_its_slot_its_queue_and_its_tokens() -> None:
    world = World(max_queued_tokens=500)
    acme = tenant(concurrent_requests=1, tokens_per_minute=600)
    asyncio.run(hang_up(world, acme))
    world.now += GRACE + 10  # the place of the refused one
    world.once(acme, 500)


def test_concurrent_requests_are_limited_and_the_wait_follows_how_long_they_take() -> None:
    world, acme = World(), tenant(concurrent_requests=2)
    for _ in range(10):
        stack, _ = world.enter(acme)
        world.now += 4
        stack.close()
    first, _ = world.enter(acme)
    world.now += 1
    second, _ = world.enter(acme)
    world.now += 1
    waits = [world.wait(acme) for _ in range(3)]
    assert waits == pytest.approx([2, 3, 6]), "two end in 2 and 3 s, and who comes then takes 4 s too"
    world.now += waits[0]
    first.close()
    world.once(acme)
    second.close()


def learn(world: World, seconds: float) -> None:
    """Let requests take so long that this is what is expected of them."""
    for _ in range(3):
        held, _ = world.enter(tenant(99))
        world.now += seconds
        held.close()


def test_a_slot_that_is_free_early_stays_with_who_was_promised_it() -> None:
    world, acme = World(), tenant(concurrent_requests=1)
    learn(world, 4)
    start = world.now
    first, _ = world.enter(acme, 1)
    promised = world.wait(acme, 2)
    assert promised == pytest.approx(4)
    world.now = start + 1
    first.close()
    later = world.wait(acme, 3)
    assert later == pytest.approx(3 + 1), "after the promised one, which begins in 3 s and takes one"
    world.now = start + promised
    second, _ = world.enter(acme, 2)
    world.now += 1
    second.close()
    world.now = start + 1 + later
    world.once(acme, 3)


def test_a_request_that_takes_longer_than_usual_is_given_that_time_again() -> None:
    world, acme = World(), tenant(concurrent_requests=1)
    learn(world, 4)
    world.enter(acme)
    world.now += 100
    assert world.wait(acme) == pytest.approx(4)


def test_the_queue_of_all_tenants_refuses_with_the_time_it_takes_to_drain() -> None:
    world = World(max_queued_tokens=1000)
    world.load = Load(0, 100.0)
    stack, _ = world.enter(tenant(1), 900)
    with pytest.raises(Overloaded) as refused:
        world.once(tenant(2), 300)
    assert refused.value.status == 503
    assert refused.value.retry_after == pytest.approx(2)
    stack.close()
    world.now += 2
    world.once(tenant(2), 300)


def test_refused_by_the_queue_they_come_back_one_after_the_other() -> None:
    world = World(max_queued_tokens=1000)
    world.load = Load(0, 100.0)
    held, _ = world.enter(tenant(1), 1000)
    waits = [world.wait(tenant(2), 100) for _ in range(5)]
    assert waits == pytest.approx([1, 2, 3, 4, 5])
    held.close()
    for before, wait in zip([0.0, *waits], waits, strict=False):
        world.now += wait - before
        world.enter(tenant(2), 100)


def test_a_tenant_within_its_share_is_not_kept_out_by_what_others_are_promised() -> None:
    world = World(max_queued_tokens=1000)
    world.load = Load(0, 100.0)
    full, _ = world.enter(tenant(1), 1000)
    for number in range(2, 12):
        world.wait(tenant(number), 200)
    full.close()
    world.now += 60  # Those ten have not come back and no longer share the queue.
    _held, _ = world.enter(tenant(1), 300)
    world.wait(tenant(30), 800)
    assert world.wait(tenant(20), 400) > 1, "beyond a third of the queue the promised 800 go first"
    world.once(tenant(21), 250)


def test_what_is_promised_drains_from_when_it_is_there() -> None:
    world = World(max_queued_tokens=1000)
    world.load = Load(0, 100.0)
    full, _ = world.enter(tenant(1), 1000)
    assert world.wait(tenant(2), 100) == pytest.approx(1)
    full.close()
    world.now += 0.5
    assert world.wait(tenant(2), 950) == pytest.approx(0.5 + 0.5), "50 of the promised 100 have to drain"


def test_the_providers_own_queue_counts_too() -> None:
    world = World(max_queued_tokens=1000)
    world.load = Load(990, 10.0)
    assert world.wait(tenant(), 20) == pytest.approx(1)
    world.load = Load(900, 10.0)
    world.once(tenant(), 20)


def test_a_request_larger_than_the_queue_is_let_in_when_that_is_empty() -> None:
    world = World(max_queued_tokens=1000)
    world.load = Load(0, 100.0)
    stack, _ = world.enter(tenant(1), 400)
    assert world.wait(tenant(2), 5000) == pytest.approx(4)
    stack.close()
    world.now += 4
    world.once(tenant(2), 5000)


def test_a_huge_request_of_a_tenant_that_holds_some_waits_for_an_empty_queue_and_no_longer() -> None:
    world = World(max_queued_tokens=1000)
    world.load = Load(0, 100.0)
    held, _ = world.enter(tenant(1), 400)
    assert world.wait(tenant(1), 50_000) == pytest.approx(4)
    held.close()
    world.now += 4
    world.once(tenant(1), 50_000)


def test_a_queue_that_drains_slower_than_foreseen_keeps_the_place() -> None:
    world = World(max_queued_tokens=1000)
    world.load = Load(0, 100.0)
    held, _ = world.enter(tenant(1), 900)
    wait = world.wait(tenant(2), 200)
    world.now += wait
    wait = world.wait(tenant(2), 200)
    world.now += wait + GRACE - 0.1
    world.wait(tenant(2), 100)
    held.close()
    world.enter(tenant(2), 200)


def test_those_who_are_back_too_early_queue_up_again_in_their_order() -> None:
    world = World(max_queued_tokens=1000)
    world.load = Load(0, 100.0)
    held, _ = world.enter(tenant(1), 1000)
    sizes = [100, 101, 102]
    world.now += [world.wait(tenant(2), size) for size in sizes][-1]
    again = [world.wait(tenant(2), size) for size in sizes]
    assert again == pytest.approx([1, 2.01, 3.03])
    held.close()
    for size in reversed(sizes):
        world.now += 4
        world.enter(tenant(2), size)


def test_requests_of_all_tenants_are_limited() -> None:
    world = World(max_requests=2)
    first, _ = world.enter(tenant(1))
    _second, _ = world.enter(tenant(2))
    wait = world.wait(tenant(3))
    first.close()
    world.now += wait
    world.once(tenant(3))


def test_requests_are_told_when_the_oldest_of_all_tenants_will_have_ended() -> None:
    world = World(max_requests=4)
    learn(world, 4)
    for number in range(4):
        world.enter(tenant(number))
        world.now += 0.5
    assert world.wait(tenant(5)) == pytest.approx(2)


def test_requests_of_several_tenants_are_told_one_turn_after_the_other() -> None:
    world = World(max_requests=2)
    learn(world, 4)
    world.enter(tenant(1))
    world.enter(tenant(2))
    world.now += 1
    assert [world.wait(tenant(number)) for number in (3, 4, 5)] == pytest.approx([3, 3, 7])


def test_who_is_back_in_time_need_not_wait_for_who_is_not() -> None:
    world = World(max_queued_tokens=1000)
    world.load = Load(0, 100.0)
    held, _ = world.enter(tenant(1), 1000)
    assert [world.wait(tenant(2), size) for size in (700, 400)] == pytest.approx([7, 11])
    held.close()
    world.now += 11
    world.once(tenant(2), 400)
    world.once(tenant(2), 700)


def test_a_greedy_tenant_leaves_room_for_one_that_comes_later() -> None:
    world = World(max_queued_tokens=1000)
    world.load = Load(0, 100.0)
    greedy, modest = tenant(1), tenant(2)
    held = []
    while True:
        try:
            held.append(world.enter(greedy, 50))
        except Overloaded:
            break
    assert sum(50 for _ in held) == 800
    for _ in range(300):
        world.wait(greedy, 50)
    world.once(modest, 200)


def test_a_tenant_at_its_rate_limit_does_not_touch_another() -> None:
    world = World()
    flooding, other = tenant(1, requests_per_minute=1), tenant(2, requests_per_minute=1)
    world.once(flooding)
    for _ in range(1000):
        world.wait(flooding)
    world.once(other)


def test_limits_that_change_count_at_once() -> None:
    world = World()
    world.once(tenant(requests_per_minute=1))
    assert world.wait(tenant(requests_per_minute=60)) == pytest.approx(1)
    world.now += 1
    world.once(tenant(requests_per_minute=60))
    held, _ = world.enter(tenant(2, concurrent_requests=2))
    world.wait(tenant(2, concurrent_requests=1))
    held.close()


def test_routers_share_the_limits_out() -> None:
    world = World(router_replicas=4, max_queued_tokens=4000, max_requests=400)
    world.load = Load(0, 400.0)
    acme = tenant(requests_per_minute=8, concurrent_requests=2)
    world.once(acme)
    world.once(acme)
    assert world.wait(acme) == pytest.approx(30), "a quarter of 8 a minute"
    _held, _ = world.enter(tenant(2, concurrent_requests=2), 900)
    world.wait(tenant(2, concurrent_requests=2), 1)
    assert world.wait(tenant(3), 200) == pytest.approx(1)


def test_tenants_with_nothing_used_up_are_forgotten() -> None:
    world = World()
    for number in range(1, 501):
        world.once(tenant(number))
    assert world.admission.tenants_remembered == 500
    world.now += 61
    for _ in range(300):
        world.once(tenant(1000))
    assert world.admission.tenants_remembered <= 2


def test_threads_never_get_in_beyond_the_limit() -> None:
    world, acme = World(), tenant(requests_per_minute=500)
    admitted: list[int] = []

    def many() -> None:
        for _ in range(200):
            try:
                world.once(acme)
            except RateLimited:
                continue
            admitted.append(1)

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 500


def test_a_refusal_names_no_other_tenant() -> None:
    world = World(max_queued_tokens=10)
    _held, _ = world.enter(tenant(1), 10)
    with pytest.raises(RowbeamError) as refused:
        world.once(tenant(2), 10)
    assert "tenant-1" not in str(refused.value)
