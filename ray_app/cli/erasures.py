"""``rowbeam tenant erasures`` and ``rowbeam tenant erasure …``: what removals erased, and its proof."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from ray_app.cli.output import OK, AsJson, emit, emit_json
from ray_app.errors import ConflictError, InputError

app = typer.Typer(help="Get the signed record of a tenant's erasure, and check one.")


def erasures(
    verify: Annotated[
        bool, typer.Option("--verify", help="First do the rounds that are due, as a running server does.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """List the removals of tenants, with what was erased and when it is final."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering_erasures

    with Rowbeam.open() as rowbeam:
        if verify:
            rowbeam.erasures.finish_due()
        found = rowbeam.erasures.list()
    emit(found, rendering_erasures.erasures, as_json=as_json, name="erasures")
    return OK


@app.command("record")
def record(
    incarnation: Annotated[
        str, typer.Argument(help="The tenant's: what rowbeam tenant erasures shows.", show_default=False)
    ],
    as_json: AsJson = False,
) -> int:
    """Print the signed record, in the form that is signed and can be checked."""
    from ray_app.app import Rowbeam
    from ray_app.offboarding.records import canonical

    try:
        wanted = UUID(incarnation)
    except ValueError:
        raise InputError(f"{incarnation!r} is no incarnation.", hint="It is a UUID.") from None
    with Rowbeam.open() as rowbeam:
        erasure = rowbeam.erasures.get(wanted)
    if erasure.record is None:
        raise ConflictError(
            "The tenant is still being erased.", hint="Finish it: rowbeam tenant remove, with its name."
        )
    del as_json  # it is JSON in any case
    sys.stdout.write(canonical(erasure.record).decode() + "\n")
    return OK


@app.command("key")
def key(as_json: AsJson = False) -> int:
    """Print the public key with which this deployment's records are checked."""
    from ray_app.app import Rowbeam

    with Rowbeam.open() as rowbeam:
        public = rowbeam.erasures.public_key()
    if as_json:
        emit_json({"public_key": public})
    else:
        sys.stdout.write(public)
    return OK


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="The signed record.", show_default=False)],
    key: Annotated[Path, typer.Option("--key", help="The public key, in PEM.", show_default=False)],
    as_json: AsJson = False,
) -> int:
    """Check a record against a public key. Asks no ledger; fails if any byte is not as it was signed."""
    from ray_app.cli import rendering_erasures
    from ray_app.offboarding.records import verify

    record = verify(_read(file), _read(key).decode("utf-8", "replace"))
    emit(record, rendering_erasures.record, as_json=as_json)
    return OK


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from error
