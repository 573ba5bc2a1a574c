"""Views to HTML: the templates, and the files a page needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from ray_app.console.charts import COLOURS, WIDTH

_PACKAGE: Final = "ray_app.console"
#: Files that pages link to, and what they are.
STATIC: Final = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
#: Path below the console's own and name, in the order of the menu.
PAGES: Final = (
    ("", "Overview"),
    ("tenants", "Tenants"),
    ("jobs", "Jobs"),
    ("dead-letters", "Dead letters"),
    ("providers", "Providers"),
    ("search", "Search"),
    ("alerts", "Alerts"),
    ("setup", "Set-up"),
)


@dataclass(frozen=True)
class Frame:
    """What is around a page's own content."""

    #: Path of the console, without a slash at its end.
    base: str
    #: Goes into every form; None before there is a session, and then there is no form.
    token: str | None = None
    operator: bool = False
    #: When the page was made, in words.
    made: str = ""


def render(template: str, frame: Frame, **content: object) -> str:
    """The page. Everything in ``content`` is escaped, wherever it comes from."""
    return _templates().get_template(template).render(frame=frame, **content)


@cache
def static_file(name: str) -> tuple[bytes, str]:
    """A file's bytes and a mark that changes with them. Raises KeyError for a name not in ``STATIC``."""
    if name not in STATIC:
        raise KeyError(name)
    content = (files(_PACKAGE) / "static" / name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:16]


def _asset(frame: Frame, name: str) -> str:
    return f"{frame.base}/static/{name}?{static_file(name)[1]}"


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(asset=_asset, pages=PAGES, chart_width=WIDTH, chart_colours=COLOURS)
    return environment
