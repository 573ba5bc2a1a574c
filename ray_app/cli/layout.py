"""What the renderings are made of: plain tables, lists of facts and times."""

from __future__ import annotations

from datetime import datetime

from rich import box
from rich.table import Table
from rich.text import Text


def when(moment: datetime | None) -> str:
    """In this machine's time zone."""
    return "not yet" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def table_of(*columns: str) -> Table:
    """A plain table; a name that ends in ``>`` is a column of numbers, which are never broken."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in columns:
        number = name.endswith(">")
        table.add_column(
            name.rstrip(">"), justify="right" if number else "left", no_wrap=number, overflow="fold"
        )
    return table


def facts_of(*rows: tuple[str, str | Text]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        add_row(table, *row)
    return table


def add_row(table: Table, *cells: str | Text) -> None:
    """Add a row of literal text: rich would read "[red]" inside a plain string as markup."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
