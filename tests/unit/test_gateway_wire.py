from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ray_app.providers.gateway_wire import (
    Answer,
    ErrorBody,
    MalformedAnswer,
    RequestForm,
    decode_answer,
    decode_error,
)

matrices = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 8), st.integers(1, 5)),
    # Denormal numbers have too few digits to keep a direction.
    elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
).filter(lambda matrix: bool(np.abs(matrix).max(axis=1).all()))


def answer(data: list[Any], **others: Any) -> bytes:
    return json.dumps({"object": "list", "data": data, "model": "m"} | others).encode()


def item(index: Any, embedding: Any) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": embedding}


def as_base64(row: Any) -> str:
    return base64.b64encode(np.asarray(row, dtype="<f4").tobytes()).decode()


@given(matrices, st.booleans(), st.randoms(use_true_random=False))
def test_vectors_come_back_as_unit_rows_in_any_order_and_format(
    matrix: np.ndarray, packed: bool, order: Any
) -> None:
    data = [item(index, as_base64(row) if packed else row.tolist()) for index, row in enumerate(matrix)]
    order.shuffle(data)
    decoded = decode_answer(answer(data), len(matrix))
    exact = matrix.astype(np.float64)
    exact /= np.abs(exact).max(axis=1, keepdims=True)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    assert decoded.unusable == ()
    assert decoded.vectors.dtype == np.float32
    np.testing.assert_allclose(decoded.vectors, exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_very_large_and_very_small_numbers_keep_their_direction(scale: float) -> None:
    decoded = decode_answer(answer([item(0, [3 * scale, 4 * scale])]), 1)
    np.testing.assert_allclose(decoded.vectors, [[0.6, 0.8]], rtol=1e-6)


@pytest.mark.parametrize(
    "embedding",
    [
        None,
        [],
        "",
        "not base64!",
        base64.b64encode(b"12345").decode(),
        [0.0, 0.0],
        [1.0, None],
        [1.0, "x"],
        [[1.0, 2.0]],
        {"a": 1},
        [float("nan"), 1.0],
        [float("inf"), 1.0],
        as_base64([float("nan"), 1.0]),
        [10**400, 1.0],
        7,
    ],
)
def test_what_is_no_usable_vector_is_told_apart(embedding: Any) -> None:
    decoded = decode_answer(answer([item(0, [3.0, 4.0]), item(1, embedding)]), 2)
    assert decoded.unusable == (1,)
    np.testing.assert_allclose(decoded.vectors, [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_a_missing_item_is_unusable() -> None:
    decoded = decode_answer(answer([item(2, [1.0]), item(0, [1.0])]), 3)
    assert decoded.unusable == (1,)


def test_one_missing_index_has_one_place() -> None:
    data = [item(1, [0.0, 1.0]), {"embedding": [1.0, 0.0]}]
    np.testing.assert_allclose(decode_answer(answer(data), 2).vectors, np.eye(2))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"data": null}',
        b'{"data": ["x"]}',
        answer([{"embedding": [1.0]}, {"embedding": [1.0]}]),
        answer([item(0, [1.0]), item(0, [1.0])]),
        answer([item(0, [1.0]), item(2, [1.0])]),
        answer([item(-1, [1.0]), item(0, [1.0])]),
        answer([item("0", [1.0]), item("1", [1.0])]),
        answer([item(False, [1.0]), item(True, [1.0])]),
        answer([item(0, [1.0]), item(1, [1.0]), item(2, [1.0])]),
        answer([item(0, [1.0]), item(1, [1.0, 2.0])]),
        answer([{"embedding": [1.0]}]),
    ],
)
def test_answers_that_cannot_be_matched_to_the_texts_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        decode_answer(body, 2)


def test_a_malformed_answer_still_tells_its_tokens() -> None:
    with pytest.raises(MalformedAnswer) as caught:
        decode_answer(answer([item(0, [1.0])] * 2, usage={"total_tokens": 9}), 2)
    assert caught.value.tokens == 9


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 3, "total_tokens": 4}, 3),
        ({"total_tokens": 4}, 4),
        ({"prompt_tokens": 0, "total_tokens": 0}, None),
        ({"prompt_tokens": "3"}, None),
        ({"prompt_tokens": -3}, None),
        ({"prompt_tokens": True}, None),
        ([], None),
        (None, None),
    ],
)
def test_usage_is_read_where_it_makes_sense(usage: Any, tokens: int | None) -> None:
    assert decode_answer(answer([item(0, [1.0])], usage=usage), 1).tokens == tokens


def test_no_usable_vector_at_all_has_no_size() -> None:
    decoded = decode_answer(answer([item(0, None)]), 1)
    assert isinstance(decoded, Answer)
    assert (decoded.dimensions, decoded.unusable) == (0, (0,))


def test_a_request_says_no_more_than_its_form() -> None:
    assert json.loads(RequestForm("m", base64=False).encode(["ä", "b"])) == {
        "model": "m",
        "input": ["ä", "b"],
    }
    assert json.loads(RequestForm("m", 5).encode(["a"])) == {
        "model": "m",
        "input": ["a"],
        "dimensions": 5,
        "encoding_format": "base64",
    }


def test_simpler_forms_leave_out_one_thing_after_the_other() -> None:
    assert RequestForm("m", 5).simpler() == [
        RequestForm("m", 5, base64=False),
        RequestForm("m", base64=False),
    ]
    assert RequestForm("m").simpler() == [RequestForm("m", base64=False)]
    assert RequestForm("m", 5, base64=False).simpler() == [RequestForm("m", base64=False)]
    assert RequestForm("m", base64=False).simpler() == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "m", "type": "t", "code": "c"}}, ErrorBody("c", "t", "m")),
        ({"error": {"message": "m", "type": None, "code": 429}}, ErrorBody("429", "", "m")),
        (
            {"object": "error", "message": "m", "type": "BadRequestError", "code": 400},
            ErrorBody("400", "BadRequestError", "m"),
        ),
        ({"error": "m", "error_type": "Validation"}, ErrorBody("", "Validation", "m")),
        ({"error": "m"}, ErrorBody("", "", "m")),
        ({"detail": "m"}, ErrorBody("", "", "m")),
        ({"detail": [{"msg": "m", "input": ["a row's text"]}, {"msg": "n"}]}, ErrorBody("", "", "m; n")),
        ([1], ErrorBody("", "", "[1]")),
        ({}, ErrorBody()),
    ],
)
def test_errors_are_read_in_every_dialect(body: Any, said: ErrorBody) -> None:
    assert decode_error(json.dumps(body).encode()) == said


def test_an_error_that_is_not_json_is_its_message() -> None:
    assert decode_error(b"<h1>502</h1>\xff").message.startswith("<h1>502</h1>")


@pytest.mark.parametrize(
    ("body", "label"),
    [
        (ErrorBody("insufficient_quota", "t"), "insufficient_quota"),
        (ErrorBody("429", "BadRequestError"), "BadRequestError"),
        (ErrorBody("sk-abc123", "the text of a row"), ""),
        (ErrorBody(), ""),
    ],
)
def test_only_plain_identifiers_are_shown(body: ErrorBody, label: str) -> None:
    assert body.label == label
    assert "secret" not in repr(ErrorBody("c", "t", "secret"))
