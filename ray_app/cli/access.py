"""``rowbeam tenant key …``, ``rowbeam tenant limits`` and ``rowbeam usage``: who may do how much, and did."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final

import typer

from ray_app.cli.output import OK, AsJson, emit, emit_json
from ray_app.errors import InputError

keys = typer.Typer(help="Add, list, rotate and revoke a tenant's API keys.")

Name = Annotated[str, typer.Argument(help="The tenant's name.", show_default=False)]
KeyId = Annotated[
    str, typer.Argument(help="The key's id: what rowbeam tenant key list shows.", show_default=False)
]
DAY: Final = ["%Y-%m-%d"]


@keys.command("add")
def add_key(name: Name, as_json: AsJson = False) -> int:
    """Make one more key and print it, this once. The others go on working."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering_access

    with Rowbeam.open() as rowbeam:
        key = rowbeam.add_key(name)
    emit(key, rendering_access.new_key, as_json=as_json)
    return OK


@keys.command("list")
def list_keys(name: Name, as_json: AsJson = False) -> int:
    """List a tenant's keys, with when each was last used. None shows what proves a key."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering_access

    with Rowbeam.open() as rowbeam:
        found = rowbeam.list_keys(name)
    emit(found, rendering_access.keys, as_json=as_json, name="keys")
    return OK


@keys.command("rotate")
def rotate_key(
    name: Name,
    key_id: KeyId,
    grace: Annotated[
        float, typer.Option("--grace", help="Hours for which the old key goes on working; 0 for none.", min=0)
    ] = 24,
    as_json: AsJson = False,
) -> int:
    """Make a key in place of an old one, and print it, this once."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering_access

    try:
        period = timedelta(hours=grace)
    except (OverflowError, ValueError):
        raise InputError(f"{grace} hours are no grace period.", hint="Use a number such as 24.") from None
    with Rowbeam.open() as rowbeam:
        done = rowbeam.rotate_key(name, key_id, grace=period)
    emit(done, rendering_access.rotation, as_json=as_json)
    return OK


@keys.command("revoke")
def revoke_key(name: Name, key_id: KeyId, as_json: AsJson = False) -> int:
    """Refuse a key from now on. A running server notices within a few seconds."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering_access

    with Rowbeam.open() as rowbeam:
        done = rowbeam.revoke_key(name, key_id)
    emit(done, rendering_access.revocation, as_json=as_json)
    return OK


def limits(
    name: Name,
    requests_per_minute: Annotated[str | None, typer.Option(help='A number, or "default".')] = None,
    tokens_per_minute: Annotated[str | None, typer.Option(help='A number, or "default".')] = None,
    concurrent_requests: Annotated[str | None, typer.Option(help='A number, or "default".')] = None,
    monthly_cost: Annotated[
        str | None, typer.Option(help='US dollars of gateway calls, or "default" for no limit.')
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Show what a tenant may use of a shared server, or change it."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering_access

    given: dict[str, tuple[str | None, Callable[[str], int | Decimal]]] = {
        "requests_per_minute": (requests_per_minute, int),
        "tokens_per_minute": (tokens_per_minute, int),
        "concurrent_requests": (concurrent_requests, int),
        "monthly_cost": (monthly_cost, Decimal),
    }
    changes = {
        limit: _number(limit, text, parse) for limit, (text, parse) in given.items() if text is not None
    }
    with Rowbeam.open() as rowbeam:
        tenant = rowbeam.set_limits(name, changes)
    emit(tenant, rendering_access.limits, as_json=as_json)
    return OK


def _number(limit: str, text: str, parse: Callable[[str], int | Decimal]) -> int | Decimal | None:
    """The number, or None for the default."""
    if text == "default":
        return None
    try:
        return parse(text)
    except (ValueError, InvalidOperation):
        option = limit.replace("_", "-")
        raise InputError(f"--{option}: {text!r} is not a number.", hint='Or use "default".') from None


def usage(
    tenant: Annotated[str, typer.Option("--tenant", "-t", help="The tenant's name.", show_default=False)],
    first: Annotated[
        datetime | None, typer.Option("--from", formats=DAY, help="First day, UTC; else the month's first.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=DAY, help="Last day, UTC; else today.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Show what a tenant's texts came to: tokens and cost by day, provider, model and table."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering_access

    with Rowbeam.open() as rowbeam:
        report = rowbeam.usage(
            tenant, first=first.date() if first else None, last=last.date() if last else None
        )
    if as_json:
        emit_json(report.to_json())
    else:
        emit(report, rendering_access.usage, as_json=False)
    return OK
