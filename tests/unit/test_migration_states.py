from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.errors import ConflictError
from ray_app.migrating.reports import Verification
from ray_app.migrating.states import Stage, Step, follow

STEPS = st.lists(st.sampled_from(list(Step)), max_size=40)


@given(STEPS)
def test_only_what_was_verified_takes_over_and_what_was_pinned_is_never_dropped_unasked(
    steps: list[Step],
) -> None:
    """A model of two generations: which one is pinned, which complete, and which still exists."""
    stage: Stage | None = None
    complete = there = False
    for step in steps:
        try:
            after = follow(stage, step)
        except ConflictError:
            continue
        if step is Step.START:
            assert not there
            there, complete = True, False
        if step is Step.VERIFY:
            complete = True
        if step in (Step.FILL, Step.RETURN):
            complete = False
        if step is Step.SWITCH:
            assert there
            assert complete
        if after is Stage.DROPPING:
            assert step is Step.FINISH or (step is Step.ABORT and stage is not None and not stage.returns)
        if step is Step.DROPPED:
            there = False
        stage = after
        assert there == (stage is not None)


@given(STEPS)
def test_every_stage_has_a_way_out(steps: list[Step]) -> None:
    stage: Stage | None = None
    for step in steps:
        with suppress(ConflictError):
            stage = follow(stage, step)
    for step in (Step.ABORT, Step.FINISH, Step.DROPPED):
        with suppress(ConflictError):
            stage = follow(stage, step)
    assert stage is None


@pytest.mark.parametrize("stage", [None, *Stage])
def test_what_cannot_be_done_says_what_can(stage: Stage | None) -> None:
    refused = [step for step in Step if not allowed(stage, step)]
    assert refused
    for step in refused:
        with pytest.raises(ConflictError) as caught:
            follow(stage, step)
        assert caught.value.hint


def allowed(stage: Stage | None, step: Step) -> bool:
    try:
        follow(stage, step)
    except ConflictError:
        return False
    return True


def test_a_verification_says_what_is_wrong() -> None:
    good = Verification(
        rows=5, no_text=1, dead=1, records=3, ledger_points=4, stored_points=4, differing=0, sampled=10,
        retrieved=9, overlap=0.5,
    )  # fmt: skip
    assert good.problems(allow_dead=1) == []
    assert Verification.from_json(good.to_json()) == good
    (dead,) = good.problems(allow_dead=0)
    assert "1 records could not be embedded" in dead
    bad = Verification(
        rows=5, no_text=0, dead=0, records=3, ledger_points=4, stored_points=3, differing=2, sampled=10,
        retrieved=8, overlap=None,
    )  # fmt: skip
    assert len(bad.problems(allow_dead=0)) == 3
