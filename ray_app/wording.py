"""Amounts and lengths of time in words, the same on the terminal and in the console."""

from __future__ import annotations

from decimal import Decimal


def money(amount: Decimal) -> str:
    """US dollars; small amounts keep the digits that matter."""
    return f"${amount:,.2f}" if amount == 0 or amount >= 1 else f"${amount:.6f}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
