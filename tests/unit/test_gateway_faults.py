from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.providers.gateway_faults import Verdict, judge, stated_limit
from ray_app.providers.gateway_wire import ErrorBody


@given(st.integers(300, 599), st.text(max_size=30), st.integers(1, 2048))
def test_every_status_has_a_verdict_and_whatever_is_denied_has_a_hint(
    status: int, text: str, inputs: int
) -> None:
    fault = judge(status, ErrorBody(text, text, text), inputs)
    assert fault.status == status
    assert str(status) in fault.reason
    assert (fault.hint is not None) == (fault.verdict is Verdict.DENIED)
    if status >= 500:
        assert fault.verdict in {Verdict.WAIT, Verdict.SUSPECT}


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (400, Verdict.REFUSED),
        (401, Verdict.DENIED),
        (402, Verdict.DENIED),
        (403, Verdict.DENIED),
        (404, Verdict.DENIED),
        (408, Verdict.WAIT),
        (409, Verdict.WAIT),
        (413, Verdict.REFUSED),
        (422, Verdict.REFUSED),
        (424, Verdict.SUSPECT),
        (429, Verdict.WAIT),
        (500, Verdict.SUSPECT),
        (502, Verdict.WAIT),
        (503, Verdict.WAIT),
        (504, Verdict.WAIT),
        (301, Verdict.DENIED),
    ],
)
def test_statuses(status: int, verdict: Verdict) -> None:
    assert judge(status, ErrorBody(), 10).verdict is verdict


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached", "budget_exceeded"])
def test_no_quota_is_not_waited_for(code: str) -> None:
    assert judge(429, ErrorBody(code=code), 1, asked=5.0).verdict is Verdict.DENIED
    assert judge(429, ErrorBody(type=code), 1).verdict is Verdict.DENIED


@pytest.mark.parametrize(
    ("status", "error", "limit"),
    [
        (400, ErrorBody(message="Too many inputs. The max number of inputs is 16. See ?linkid=2213926"), 16),
        (400, ErrorBody(message="Too many inputs for model None. The max number of inputs is 1."), 1),
        (422, ErrorBody(message="batch size 100 > maximum allowed batch size 32"), 32),
        (413, ErrorBody(message="batch size 100 > maximum allowed batch size 32"), 32),
        (400, ErrorBody(message="<400> batch size is invalid, it should not be larger than 10"), 10),
        (400, ErrorBody(message="The batch size limit is 64. Your batch size is 100."), 64),
        (400, ErrorBody("array_above_max_length", message="maximum length 64, but got 100"), 64),
        (422, ErrorBody(message="List should have at most 32 items after validation, not 100"), 32),
        (400, ErrorBody(message="Too many inputs."), 50),
    ],
)
def test_limits_on_inputs_are_read_from_messages(status: int, error: ErrorBody, limit: int) -> None:
    fault = judge(status, error, 100)
    assert (fault.verdict, fault.max_inputs) == (Verdict.TOO_LARGE, limit)
    assert judge(status, error, 1).verdict is Verdict.REFUSED, "one text cannot be cut"


def test_limits_on_tokens_are_told_apart() -> None:
    said = ErrorBody(
        "max_tokens_per_request", message="Requested 453357 tokens, max 300000 tokens per request"
    )
    fault = judge(400, said, 100)
    assert (fault.verdict, fault.too_many_tokens, fault.max_inputs) == (Verdict.TOO_LARGE, True, None)


def test_a_text_too_long_is_not_a_request_too_large() -> None:
    said = ErrorBody(
        message="This model's maximum context length is 8192 tokens, however you requested 9001 tokens"
    )
    assert judge(400, said, 100).verdict is Verdict.REFUSED


@given(st.text(max_size=60), st.integers(2, 5_000))
def test_a_stated_limit_is_always_less_than_what_was_sent(message: str, inputs: int) -> None:
    assert 1 <= stated_limit(message, inputs) < inputs
