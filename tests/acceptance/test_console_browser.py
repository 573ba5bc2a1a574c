"""The console in a real browser: readable everywhere, usable by keyboard, alive while a job runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from pydantic import SecretStr
from sqlalchemy import text

from ray_app.backfilling import create_backfill
from ray_app.baseline import Baseline, ProviderMeasurement, save_baseline
from ray_app.console.login_attempts import LoginAttempts
from ray_app.console.rendering import PAGES
from ray_app.reports import JobState
from ray_app.settings import Settings
from tests.conftest import fresh_database
from tests.support import screenshots
from tests.support.api_site import ADMIN_KEY, ApiSite
from tests.support.browser import LOW_CONTRAST, chromium, log_in, open_page
from tests.support.console_site import TABLE, SteppedJob, Submissions, add_poison, add_rows, add_usage
from tests.support.tools import tool
from tests.support.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
#: As the pictures' tenant is called.
OURS = screenshots.TENANT
DESK = {"width": 1200, "height": 800}
PHONE = {"width": 360, "height": 740}
LOOKS = {
    "light": {"viewport": DESK, "color_scheme": "light"},
    "dark": {"viewport": DESK, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light", "has_touch": True},
    "tablet": {"viewport": {"width": 1000, "height": 700}, "color_scheme": "dark"},
    "dark phone": {"viewport": {**PHONE, "width": 320}, "color_scheme": "dark"},
}
expect.set_options(timeout=1000 * PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(tool("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def cluster() -> Submissions:
    return Submissions()


@pytest.fixture(scope="module")
def site(
    postgres_url: str,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
    cluster: Submissions,
) -> Iterator[ApiSite]:
    """A server with a tenant whose rows are embedded but for one, and what the other pages show."""
    with fresh_database(postgres_url, template_database) as url:
        settings = Settings(
            home=tmp_path_factory.mktemp("home"), database_url=SecretStr(url), local_model="stub"
        )
        local = ProviderMeasurement("local-cpu", "all-MiniLM-L6-v2", "s", 600.0, 40_000.0, 5.0, 8.0, 0.0, 0.0)
        gateway = ProviderMeasurement("gateway", "m", "t", 900.0, 90_000.0, 180.0, 400.0, 0.02, 1.0)
        save_baseline(settings.home, Baseline("2026-11-20", "two cores", (local, gateway)))
        with ApiSite(settings, jobs=cluster) as site:
            site.add_tenant(OURS)
            site.add_tenant("globex")
            add_rows(site, OURS, 30, title="login fails after update")
            add_poison(site, OURS, 900)
            add_rows(site, "globex", 1500, first=10_000)
            add_usage(site, "globex", datetime.now(UTC).date(), "0.75")
            SteppedJob(site, OURS, create_backfill(site.workspace, site.tenant(OURS))).run()
            yield site


@pytest.fixture(autouse=True)
def first_try(site: ApiSite) -> None:
    """Each test may log in, however many did in this minute."""
    site.app.state.console.attempts = LoginAttempts()


@pytest.fixture
def page(browser: Browser, site: ApiSite) -> Iterator[Page]:
    """An operator's."""
    with open_page(browser, site.url, viewport=DESK) as page:
        log_in(page, ADMIN_KEY)
        yield page


@pytest.fixture
def job(site: ApiSite, cluster: Submissions, page: Page) -> Iterator[SteppedJob]:
    """A job of ``globex`` that runs, started on its page, which is left open at the job's."""
    page.goto("/console/tenants/globex")
    page.get_by_role("button", name="Backfill").click()
    expect(page.get_by_role("status")).to_have_text("The job is started.")
    job = SteppedJob(site, "globex", cluster.submitted[-1])
    yield job
    job.finish(JobState.CANCELLED)


def overflow(page: Page) -> int:
    """Pixels that the page is wider than the window."""
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return int(wider)


def check_readable(page: Page) -> None:
    assert overflow(page) == 0, page.url
    assert page.evaluate(LOW_CONTRAST) == [], page.url
    unnamed = page.locator("input:not([type=hidden]), select, button").evaluate_all(
        "found => found.filter(each => !(each.labels?.length || each.textContent.trim() || each.ariaHidden))"
        ".map(each => each.outerHTML)"
    )
    assert unnamed == []
    assert page.locator("h1").count() == 1


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_is_readable(browser: Browser, site: ApiSite, look: str) -> None:
    options: dict[str, Any] = LOOKS[look]
    with open_page(browser, site.url, **options) as page:
        page.goto("/console")
        check_readable(page)
        log_in(page, ADMIN_KEY)
        for _, name in PAGES:
            page.get_by_role("navigation", name="Pages").get_by_role("link", name=name, exact=True).click()
            expect(page.get_by_role("heading", level=1)).to_have_text(name)
            check_readable(page)
        page.goto(f"/console/tenants/{OURS}")
        expect(page.locator(f"#index-{TABLE}-content")).to_contain_text("31")
        check_readable(page)
        dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (not dark)


def focused(page: Page) -> dict[str, Any]:
    """What has the focus, and whether that can be seen."""
    found: dict[str, Any] = page.evaluate(
        "(() => { const at = document.activeElement, style = getComputedStyle(at);"
        " return {name: (at.labels?.[0] || at).textContent.trim(), tag: at.tagName, id: at.id,"
        " ring: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2}; })()"
    )
    return found


def tab_to(page: Page, name: str) -> None:
    """Press Tab until ``name`` has the focus; every stop on the way can be seen."""
    for _ in range(60):
        page.keyboard.press("Tab")
        at = focused(page)
        assert at["ring"], at
        if at["name"].startswith(name):
            return
    raise AssertionError(f"{name} cannot be reached by keyboard")


def test_everything_can_be_done_by_keyboard(browser: Browser, site: ApiSite, cluster: Submissions) -> None:
    with open_page(browser, site.url, viewport=DESK) as page:
        page.goto("/console/login")
        assert focused(page)["id"] == "key"
        page.keyboard.type(ADMIN_KEY)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Overview")

        page.keyboard.press("Tab")
        assert focused(page)["name"] == "Skip to the content"
        page.keyboard.press("Enter")
        assert focused(page)["id"] == "main"

        page.goto("/console")
        tab_to(page, "Tenants")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Tenants")
        tab_to(page, OURS)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text(f"Tenant {OURS}")
        tab_to(page, "Backfill")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_have_text("The job is started.")
        SteppedJob(site, OURS, cluster.submitted[-1]).run()

        tab_to(page, "Search")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Search")
        tab_to(page, "Look for")
        page.keyboard.type("login fails")
        page.keyboard.press("Enter")
        expect(page.locator(".hits li").first).to_contain_text("login fails after update")
        assert float(page.locator(".hits .score").first.inner_text()) > 0.3


def test_progress_moves_by_itself_and_a_job_is_cancelled(page: Page, job: SteppedJob) -> None:
    bar = page.locator("progress")
    expect(bar).to_have_attribute("value", "0")
    page.evaluate("window.stayed = true")
    cancel = page.get_by_role("button", name="Cancel")
    cancel.focus()

    job.step(2)
    expect(bar).not_to_have_attribute("value", "0")
    before = int(str(bar.get_attribute("value")))
    announced = page.locator("[aria-live=polite]")
    expect(announced).to_contain_text("percent done")
    job.step(2)
    expect(bar).not_to_have_attribute("value", str(before))
    assert 0 < before < int(str(bar.get_attribute("value"))) < int(str(bar.get_attribute("max")))
    expect(page.locator("#live")).to_contain_text("rows/s")

    assert page.evaluate("window.stayed"), "the page was not loaded anew"
    assert focused(page)["name"].startswith("Cancel"), "the focus stayed"
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("The job stops")
    expect(page.locator("#live .tag").first).to_have_text("cancel requested")
    assert job.step(0) is JobState.CANCEL_REQUESTED
    job.finish(JobState.CANCELLED)
    expect(page.locator("#live .tag").first).to_have_text("cancelled")
    expect(page.get_by_role("button", name="Resume")).to_be_visible()


def test_updates_can_be_paused(page: Page, job: SteppedJob) -> None:
    pause = page.get_by_role("button", name="Pause updates")
    pause.click()
    expect(pause).to_have_attribute("aria-pressed", "true")
    made = page.locator("#made").inner_text()
    job.step(1)
    page.wait_for_timeout(3000)  # longer than the page's usual wait
    assert page.locator("#made").inner_text() == made
    expect(page.locator("progress")).to_have_attribute("value", "0")
    pause.click()
    expect(page.locator("progress")).not_to_have_attribute("value", "0")


def test_a_dead_letter_is_redriven(page: Page, site: ApiSite, cluster: Submissions) -> None:
    page.goto("/console/dead-letters")
    expect(page.locator(f"#letters-{OURS}")).to_contain_text("900")
    with site.workspace.source.begin() as connection:
        connection.execute(text(f"UPDATE {TABLE} SET title = 'mended' WHERE id = 900"))
    page.get_by_role("button", name=f"Redrive the dead letters of {OURS}").click()
    expect(page.get_by_role("status")).to_have_text("The dead letters are tried again, as this job.")
    SteppedJob(site, OURS, cluster.submitted[-1]).run()
    expect(page.locator("#live")).to_contain_text("1 embedded")
    page.goto("/console/dead-letters")
    expect(page.locator("#live")).to_have_text("There are none.")


def test_a_page_says_when_its_session_has_ended(browser: Browser, site: ApiSite) -> None:
    context = browser.new_context(base_url=site.url)  # the browser itself notes the 401 as an error
    page = context.new_page()
    log_in(page, ADMIN_KEY)
    page.goto("/console/jobs")
    context.clear_cookies()
    expect(page.locator("#made")).to_have_text("The session has ended. Log in again.")
    page.get_by_role("link", name="Log in again").click()
    expect(page.get_by_label("Admin key")).to_be_focused()
    assert page.url.endswith("/console/login?next=/console/jobs")
    context.close()


def test_a_page_works_without_scripts(browser: Browser, site: ApiSite) -> None:
    with open_page(browser, site.url, java_script_enabled=False) as page:
        log_in(page, ADMIN_KEY)
        page.goto("/console/jobs")
        expect(page.get_by_text("Reload the page")).to_be_visible()
        expect(page.get_by_role("button", name="Pause updates")).to_be_hidden()
        page.goto(f"/console/search?tenant={OURS}")
        page.get_by_label("Look for").fill("login fails")
        page.get_by_role("button", name="Search").click()
        expect(page.locator(".hits li").first).to_be_visible()


def test_no_script_reads_the_cookie(page: Page) -> None:
    assert page.evaluate("document.cookie") == ""
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/console")
    assert ADMIN_KEY not in json.dumps(page.context.storage_state())


def test_the_documents_pictures_can_be_taken(browser: Browser, site: ApiSite, tmp_path: Path) -> None:
    screenshots.take(browser, site.url, ADMIN_KEY, tmp_path, settle=0)
    taken = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    shown = re.findall(r"images/(console-\w+\.png)", (ROOT / "docs/console.md").read_text(encoding="utf-8"))
    assert sorted(taken) == sorted(shown)
    kept = ROOT / "docs/images"
    for name, size in taken.items():
        assert size > 5_000
        assert (kept / name).stat().st_size < 150_000
