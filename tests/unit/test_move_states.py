from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.errors import ConflictError
from ray_app.moving.reports import PlaceVerification
from ray_app.moving.states import Stage, Step, follow

STEPS = st.lists(st.sampled_from(list(Step)), max_size=40)


@given(STEPS)
def test_a_place_that_was_the_tenants_is_dropped_only_when_asked(steps: list[Step]) -> None:
    """A model of the other place: whether it exists, and whether the tenant was there."""
    stage: Stage | None = None
    there = was_home = False
    for step in steps:
        try:
            after = follow(stage, step)
        except ConflictError:
            continue
        if stage is None:
            assert step is Step.START
            there, was_home = True, False
        if step is Step.SWITCH:
            assert stage is not None
            assert stage.followed, "only what is followed takes over"
            was_home = True
        if after is Stage.DROPPING and stage is not Stage.DROPPING:
            assert step is Step.FINISH if was_home else step is Step.ABORT
        if step is Step.DROPPED:
            assert stage is Stage.DROPPING
            there = False
        stage = after
        assert there == (stage is not None)
        assert stage in (None, Stage.DROPPING) or stage.returns == was_home


@given(STEPS)
def test_every_stage_has_a_way_out(steps: list[Step]) -> None:
    stage: Stage | None = None
    for step in (*steps, Step.ABORT, Step.FINISH, Step.DROPPED):
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
        assert "--" in str(caught.value.hint)


def allowed(stage: Stage | None, step: Step) -> bool:
    try:
        follow(stage, step)
    except ConflictError:
        return False
    return True


def found(**changes: int) -> PlaceVerification:
    values = dict.fromkeys(("points", "differing", "unknown", "misplaced", "other_score"), 0)
    values |= {"sampled": 10, "found": 10, "found_there": 10}
    return PlaceVerification(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"differing": 2}, "2 records differ"),
        ({"unknown": 1}, "of 1 records the ledger"),
        ({"misplaced": 3}, "3 points have an id"),
        ({"found_there": 8}, "8 of 10 sampled"),
        ({"other_score": 1}, "1 sampled records have another score"),
    ],
)
def test_a_copy_that_is_not_the_same_does_not_take_over(changes: dict[str, int], problem: str) -> None:
    (only,) = found(**changes).problems()
    assert only.startswith(problem)
    assert PlaceVerification.from_json(found(**changes).to_json()) == found(**changes)


def test_a_graph_may_miss_one_in_ten() -> None:
    assert found(found_there=9).problems() == []
    assert found(sampled=0, found=0, found_there=0).problems() == []
