"""Tenant names, API keys, and secrets that stay out of sight."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ray_app.errors import InputError
from ray_app.tenants import (
    Placement,
    TenantScope,
    api_key_id,
    api_key_matches,
    check_tenant_name,
    hash_api_key,
    mint_api_key,
)


@pytest.mark.parametrize("name", ["a", "acme", "7-eleven", "a.b_c-d", "x" * 63])
def test_names_that_can_be_used(name: str) -> None:
    assert check_tenant_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "acme!", " acme", "acme\n", "-a", "a-", ".a", "a_", "x" * 64, "é", "a/b", "a b", "١"]
)
def test_names_that_cannot(name: str) -> None:
    with pytest.raises(InputError, match="cannot name a tenant"):
        check_tenant_name(name)


@given(st.text(max_size=80))
def test_an_accepted_name_is_safe_in_paths_and_urls(name: str) -> None:
    try:
        check_tenant_name(name)
    except InputError:
        return
    assert 1 <= len(name) <= 63
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    assert ".." not in (name, name[:2])


def test_keys_differ_and_prove_themselves() -> None:
    keys = [mint_api_key() for _ in range(50)]
    assert len({key.text for key in keys}) == 50
    for key in keys:
        assert api_key_id(key.text) == key.key_id
        assert api_key_matches(key.text, hash_api_key(key.text))
        assert not api_key_matches(key.text + "x", hash_api_key(key.text))


@given(st.text())
def test_no_other_text_proves_a_key(text: str) -> None:
    key = mint_api_key()
    assume(text != key.text)
    assert not api_key_matches(text, hash_api_key(key.text))


@pytest.mark.parametrize("text", ["", "rb", "rb_", "rb_12345678", "rb_12345678_", "xx_12345678_secret"])
def test_texts_that_are_no_key(text: str) -> None:
    assert api_key_id(text) is None


def test_a_key_may_hold_underscores() -> None:
    assert api_key_id("rb_12345678_se_cr_et") == "12345678"


def test_secrets_never_show() -> None:
    key = mint_api_key()
    secret = b"a store secret, thirty-two bytes"
    scope = TenantScope(uuid4(), Placement.EMBEDDED, secret)
    for shown in (repr(key), str(key), f"{key}", repr([key])):
        assert key.key_id in shown
        assert key.text not in shown
        assert key.text.split("_", 2)[2] not in shown
    for shown in (repr(scope), str(scope), repr({"scope": scope})):
        assert "thirty-two" not in shown
        assert str(scope.incarnation)[:8] in shown


def test_a_hash_does_not_hold_the_key() -> None:
    key = mint_api_key()
    assert len(hash_api_key(key.text)) == 32
    assert key.text.encode() not in hash_api_key(key.text)
