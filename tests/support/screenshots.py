"""Takes the pictures of ``docs/console.md`` in front of ``rowbeam demo --keep``:

python -m tests.support.screenshots http://127.0.0.1:PORT .rowbeam/demo docs/images
"""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.support.browser import chromium, log_in, open_page
from tests.support.tools import tool

DESK = {"width": 1080, "height": 720}
PHONE = {"width": 360, "height": 720}
#: The demo's first, which has most to show.
TENANT = "calder-bank"
#: Name of the picture, path of the page, and how it is looked at.
PICTURES = (
    ("overview", "", "light"),
    ("tenants", "tenants", "light"),
    ("tenant", f"tenants/{TENANT}", "light"),
    ("jobs", "jobs", "dark"),
    ("providers", "providers", "light"),
    ("search", "search", "light"),
    ("setup", "setup", "dark"),
    ("phone", "jobs", "phone"),
)
_QUESTION = "customers are charged twice when a request is retried"
#: Milliseconds for a look of the page's own, with what was still being counted.
_SETTLE = 2500
_COUNTED = 30_000


def take(
    browser: Browser,
    url: str,
    key: str,
    folder: Path,
    *,
    settle: int = _SETTLE,
    only: Collection[str] = (),
) -> None:
    """Write ``PICTURES``, or ``only`` some, into ``folder``, each after ``settle`` milliseconds."""
    with open_page(browser, url) as page:
        log_in(page, key)
        session = page.context.storage_state()
    for name, path, look in PICTURES:
        if only and name not in only:
            continue
        scheme = "dark" if look == "dark" else "light"
        size = PHONE if look == "phone" else DESK
        with open_page(browser, url, viewport=size, color_scheme=scheme, storage_state=session) as page:
            page.goto(f"/console/{path}".rstrip("/"))
            if name == "search":
                _search(page)
            page.wait_for_timeout(settle)
            expect(page.get_by_text("being counted")).to_have_count(0, timeout=_COUNTED)
            page.screenshot(path=folder / f"console-{name}.png", full_page=name != "search")


def _search(page: Page) -> None:
    page.get_by_label("Tenant").select_option(TENANT)
    page.get_by_label("Look for").fill(_QUESTION)
    page.get_by_role("button", name="Search").click()
    page.locator(".hits li").first.wait_for()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="the server's, as the demo printed it: http://127.0.0.1:PORT")
    parser.add_argument("home", type=Path, help="the demo's, which has the admin key")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("only", nargs="*", help="names of pictures, when not all are wanted")
    given = parser.parse_args()
    key = (given.home / "secrets" / "admin-key").read_text(encoding="ascii").strip()
    given.folder.mkdir(parents=True, exist_ok=True)
    with chromium(tool("chromium")) as browser:
        take(browser, given.url, key, given.folder, only=given.only)


if __name__ == "__main__":
    main()
