"""The record of an erasure: what it says, its signature, and how anybody checks one.

A record is JSON in one form only: keys sorted, no blanks, ASCII. It is signed with Ed25519, and checked
with nothing but itself and the public key, here or with ``openssl pkeyutl -verify -rawin``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from ray_app.errors import InvalidErasureRecord
from ray_app.offboarding.reports import Erasure
from ray_app.tenants import Placement

FORMAT: Final = "rowbeam-erasure/1"
#: What became of the bytes. Points of a shared collection are marked as deleted, and Postgres marks rows;
#: both clear them away later, and neither says when.
_PHYSICAL: Final = {
    Placement.EMBEDDED: "removed",
    Placement.DEDICATED: "removed",
    Placement.POOLED: "scheduled",
}
_LEDGER: Final = "scheduled"


class SigningKey:
    """The deployment's key for records of erasure, made of a seed of 32 bytes."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._private.public_key()

    @property
    def public_key(self) -> str:
        """In PEM, for whoever checks records."""
        return self._public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def sign(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """``{"record": …, "signature": …}``; the record names the key by its fingerprint."""
        whole = {**record, "key": fingerprint(self._public)}
        return {"record": whole, "signature": self._private.sign(canonical(whole)).hex()}


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the public key in DER."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def canonical(value: Any) -> bytes:
    """``value`` as JSON in the one form that is signed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def describe(erasure: Erasure, retention: timedelta) -> dict[str, Any]:
    """What the record of an erasure says, but for the key: no name, no client id, no text."""
    erased, last = erasure.erased, erasure.rounds[-1]
    previous = erasure.record
    return {
        "format": FORMAT,
        "software": f"rowbeam {version('rowbeam')}",
        "incarnation": str(erasure.incarnation),
        "placements": [str(placement) for placement in erasure.placements],
        "stage": str(erasure.stage),
        "requested_at": _time(erasure.requested_at),
        "clean_at": _time(erasure.clean_at),
        "retention_hours": int(retention.total_seconds()) // 3600,
        "next_round_due_at": None if erasure.final_at else _time(erasure.due_at),
        "final_at": _time(erasure.final_at),
        "rounds": [item.to_json() for item in erasure.rounds],
        "erased": {"points": erased.points, "nameless_points": erased.nameless, "ledger_rows": erased.rows},
        "left": {"points": last.points_found, "ledger_rows": last.rows_found},
        "proven": "not retrievable",
        "physical": {
            **{str(placement): _PHYSICAL[placement] for placement in erasure.placements},
            "ledger": _LEDGER,
        },
        "supersedes": f"sha256:{hashlib.sha256(canonical(previous)).hexdigest()}" if previous else None,
    }


def verify(document: bytes, public_key: str) -> dict[str, Any]:
    """What a signed record says, if every byte of it is as it was signed; a line end after it is allowed.

    Raises:
        InvalidErasureRecord: it is not, or the key is another one or no Ed25519 key in PEM.
    """
    key = _public(public_key)
    text = document.removesuffix(b"\n")
    try:
        whole = json.loads(text)
        record, signature = whole["record"], bytes.fromhex(whole["signature"])
        exact = canonical({"record": record, "signature": signature.hex()})
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidErasureRecord(
            "This is no record of an erasure.", hint="Get one with rowbeam tenant erasure record."
        ) from None
    if exact != text:
        raise InvalidErasureRecord(
            "The record is not in the form that is signed.",
            hint="Keys are sorted and there are no blanks: jq -cjS brings a record that was printed to it.",
        )
    try:
        key.verify(signature, canonical(record))
    except InvalidSignature:
        raise InvalidErasureRecord(
            "The signature is not one of this record with this key: either was changed.",
            hint=f"The key that was given is {fingerprint(key)}.",
        ) from None
    kind = FORMAT, fingerprint(key)
    if not isinstance(record, dict) or (record.get("format"), record.get("key")) != kind:
        raise InvalidErasureRecord(
            "The record is of a kind that is not known here.", hint="Was it made by a newer Rowbeam?"
        )
    return record


def _public(pem: str) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidErasureRecord(
            "This is no Ed25519 public key in PEM.", hint="Get it with rowbeam tenant erasure key."
        )
    return key


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
