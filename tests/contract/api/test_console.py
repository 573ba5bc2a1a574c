"""The console over HTTP: who gets in, what each page shows, and that its forms do what the API does."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import httpx
import pytest
from fastapi.routing import APIRoute
from pydantic import SecretStr
from sqlalchemy import text

from ray_app.api.app import create_api
from ray_app.api.authentication import Authenticator
from ray_app.api.console.access import COOKIE, REFRESH
from ray_app.api.console.install import MODULES
from ray_app.baseline import Baseline, ProviderMeasurement, save_baseline
from ray_app.console.alerts import LETTERS
from ray_app.console.login_attempts import PER_ADDRESS, LoginAttempts
from ray_app.console.rendering import PAGES
from ray_app.console.sessions import IDLE, LONGEST, Session, Sessions
from ray_app.db.progress import job_progress
from ray_app.db.schema import jobs as jobs_table
from ray_app.reports import JobState
from ray_app.settings import Settings
from tests.conftest import fresh_database
from tests.support.api_site import ADMIN_KEY, ApiSite
from tests.support.console_site import (
    TABLE,
    SteppedJob,
    Submissions,
    add_dead_letter,
    add_poison,
    add_rows,
    add_usage,
    log_in,
    send,
    token_in,
)
from tests.support.waiting import wait_for

HOSTILE = "<script>alert('x')</script>\"&{{7*7}}"


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
    """One server for all tests, with a tenant that has rows, vectors, a dead letter and a running job."""
    with fresh_database(postgres_url, template_database) as url:
        settings = Settings(
            home=tmp_path_factory.mktemp("home"), database_url=SecretStr(url), local_model="stub"
        )
        with ApiSite(settings, jobs=cluster) as site:
            site.add_tenant("acme")
            add_rows(site, "acme", 40)
            add_rows(site, "acme", 1, first=41, title=HOSTILE)
            add_poison(site, "acme", 900)
            add_usage(site, "acme", datetime.now(UTC).date(), "1.25")
            yield site


@pytest.fixture
def visitor(site: ApiSite) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, timeout=30) as http:
        yield http


@pytest.fixture
def http(site: ApiSite, visitor: httpx.Client) -> httpx.Client:
    """An operator's browser."""
    site.app.state.console.attempts = LoginAttempts()
    assert log_in(visitor).status_code == 303
    return visitor


@pytest.fixture
def globex(site: ApiSite) -> str:
    """A tenant of this test's own."""
    name = f"globex-{time.monotonic_ns()}"
    site.add_tenant(name)
    return name


def sessions_of(site: ApiSite, clock: Callable[[], float] = time.time) -> Sessions:
    """Those of this site as another router makes them, by a clock of its own."""
    own = asyncio.run(_sessions(site))
    return Sessions(own._key, clock)


async def _sessions(site: ApiSite) -> Sessions:
    sessions: Sessions = await site.app.state.console.sessions()
    return sessions


def session_of(site: ApiSite, http: httpx.Client) -> Session:
    session = sessions_of(site).read(http.cookies[COOKIE])
    assert session is not None
    return session


def console_routes(*methods: str) -> list[tuple[str, str]]:
    """Method and path of each of the console's routes, with something in the place of each parameter."""
    return [
        (method, re.sub(r"\{rest:path\}", "x", re.sub(r"\{(name|job_id)\}", "acme", route.path)))
        for module in MODULES
        for route in module.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
        if method in methods
    ]


OPEN = {"/console/login", "/console/static/acme"}


def test_without_a_session_every_page_leads_to_the_login(site: ApiSite, visitor: httpx.Client) -> None:
    routes = [(method, path) for method, path in console_routes("GET") if path not in OPEN]
    assert len(routes) > len(PAGES)
    for _, path in routes:
        answer = visitor.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/console/login?next={path}")
        assert "acme" not in answer.text


def test_without_a_session_no_form_does_anything(
    site: ApiSite, visitor: httpx.Client, cluster: Submissions
) -> None:
    routes = [path for _, path in console_routes("POST") if path not in OPEN]
    assert len(routes) == 6
    before = list(cluster.submitted)
    for path in routes:
        assert visitor.post(path, data={"tenant": "acme", "text": "change"}).status_code == 401
    assert cluster.submitted == before


def test_a_visitor_with_a_login_form_is_no_operator(visitor: httpx.Client) -> None:
    token = token_in(visitor.get("/console/login"))
    assert visitor.get("/console").status_code == 303
    assert visitor.post("/console/tenants/acme/backfill", data={"token": token}).status_code == 401


def test_the_admin_key_opens_the_console_and_nothing_else_does(site: ApiSite, visitor: httpx.Client) -> None:
    key = site.services.workspace.keys.add(site.tenant("acme")).text
    for wrong in ("", "x", key, ADMIN_KEY[:-1], ADMIN_KEY + "x", "é", "\ud800".encode("utf-8", "replace")):
        refused = log_in(visitor, wrong)  # type: ignore[arg-type]
        assert refused.status_code == 401
        assert "That is not the admin key." in refused.text
        assert visitor.get("/console").status_code == 303
    entered = log_in(visitor, f" {ADMIN_KEY}\n")
    assert (entered.status_code, entered.headers["location"]) == (303, "/console")
    assert visitor.get("/console").status_code == 200
    again = visitor.get("/console/login?next=/console/jobs")
    assert (again.status_code, again.headers["location"]) == (303, "/console/jobs")


def test_the_cookie_is_for_this_site_alone_and_for_no_script(visitor: httpx.Client) -> None:
    form = visitor.get("/console/login")
    plain = form.headers["set-cookie"]
    for attribute in ("HttpOnly", "SameSite=strict", "Path=/console", "Max-Age=1800"):
        assert attribute in plain
    assert "Secure" not in plain
    visitor.cookies.clear()
    behind_tls = visitor.get("/console/login", headers={"x-forwarded-proto": "https"})
    assert "Secure" in behind_tls.headers["set-cookie"]


def test_a_login_begins_a_session_of_its_own(site: ApiSite, visitor: httpx.Client) -> None:
    visitor.get("/console/login")
    before = session_of(site, visitor)
    log_in(visitor)
    after = session_of(site, visitor)
    assert (before.operator, after.operator) == (False, True)
    assert after.session_id != before.session_id


def test_a_login_form_of_another_session_is_refused(site: ApiSite, visitor: httpx.Client) -> None:
    with httpx.Client(base_url=site.url) as other:
        token = token_in(other.get("/console/login"))
    visitor.get("/console/login")
    for sent in (token, "", "x"):
        assert visitor.post("/console/login", data={"token": sent, "key": ADMIN_KEY}).status_code == 403
    visitor.cookies.clear()
    assert visitor.post("/console/login", data={"token": token, "key": ADMIN_KEY}).status_code == 403
    assert visitor.get("/console").status_code == 303


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/",
        "//evil.example/console",
        "/console@evil.example",
        "/console/../v1/tenants",
        "/consolevil",
        "javascript:alert(1)",
        "/console\\evil",
        "/console/x\r\nset-cookie: a=b",
        "/v1/tenants",
    ],
)
def test_a_login_leads_nowhere_but_to_the_console(site: ApiSite, visitor: httpx.Client, wanted: str) -> None:
    site.app.state.console.attempts = LoginAttempts()
    assert log_in(visitor, next=wanted).headers["location"] == "/console"


def test_a_login_leads_back_to_the_page_that_was_wanted(visitor: httpx.Client, site: ApiSite) -> None:
    site.app.state.console.attempts = LoginAttempts()
    sent = visitor.get("/console/tenants/acme", follow_redirects=True)
    assert 'value="/console/tenants/acme"' in sent.text
    assert log_in(visitor, next="/console/tenants/acme").headers["location"] == "/console/tenants/acme"


def test_tries_are_limited_and_the_right_key_must_wait_too(site: ApiSite, visitor: httpx.Client) -> None:
    site.app.state.console.attempts = LoginAttempts()
    statuses = [log_in(visitor, "wrong").status_code for _ in range(PER_ADDRESS + 1)]
    assert statuses == [401] * PER_ADDRESS + [429]
    refused = log_in(visitor)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 8
    assert visitor.get("/console").status_code == 303


def test_no_key_is_in_an_address_a_log_or_a_page(
    site: ApiSite, visitor: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    site.app.state.console.attempts = LoginAttempts()
    with caplog.at_level(logging.DEBUG):
        wrong = log_in(visitor, "rbadmin_wrong-and-secret")
        log_in(visitor)
        shown = [visitor.get(path).text for _, path in console_routes("GET")]
    assert "An operator logged in to the console from 127.0.0.1" in caplog.text
    for seen in (caplog.text, wrong.text, str(wrong.url), *shown):
        assert ADMIN_KEY not in seen
        assert "rbadmin_wrong-and-secret" not in seen


def visit(site: ApiSite, cookie: str, path: str = "/console/jobs", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.get(f"{site.url}{path}", headers={"cookie": f"{COOKIE}={cookie}", **named})


@pytest.mark.parametrize(("age", "status"), [(0, 200), (IDLE - 60, 200), (IDLE + 1, 303), (LONGEST + 1, 303)])
def test_a_session_ends_when_nobody_uses_it(site: ApiSite, age: int, status: int) -> None:
    earlier = sessions_of(site, lambda: time.time() - age)
    assert visit(site, earlier.cookie(earlier.begin(operator=True))).status_code == status


def test_a_forged_cookie_opens_nothing(site: ApiSite) -> None:
    stranger = Sessions(bytes(32))
    assert visit(site, stranger.cookie(stranger.begin(operator=True))).status_code == 303
    own = sessions_of(site)
    good = own.cookie(own.begin(operator=True))
    assert visit(site, good[:-1] + ("0" if good[-1] != "0" else "1")).status_code == 303


def test_opening_a_page_renews_a_session_and_its_own_refreshing_does_not(site: ApiSite) -> None:
    earlier = sessions_of(site, lambda: time.time() - 300)
    cookie = earlier.cookie(earlier.begin(operator=True))
    assert "set-cookie" not in visit(site, cookie, **{REFRESH: "1"}).headers
    renewed = visit(site, cookie).headers["set-cookie"]
    assert renewed.startswith(f"{COOKIE}=")
    value = renewed.partition("=")[2].partition(";")[0]
    session = sessions_of(site).read(value)
    assert session is not None
    assert session.renewed - session.began >= 299


def test_a_page_that_refreshes_itself_is_told_of_the_sessions_end(site: ApiSite) -> None:
    answer = visit(site, "gone", **{REFRESH: "1"})
    assert (answer.status_code, "location" in answer.headers) == (401, False)


def test_other_routers_take_the_session_until_the_admin_key_is_changed(
    site: ApiSite, http: httpx.Client
) -> None:
    async def ask(key: str) -> int:
        """A page of another router of the same deployment."""
        authenticator = Authenticator(site.workspace.registry, SecretStr(key))
        app = create_api(replace(site.services, authenticator=authenticator))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://other", cookies=cookies) as other:
            return (await other.get("/console/jobs")).status_code

    cookies = {COOKIE: http.cookies[COOKIE]}
    assert asyncio.run(ask(ADMIN_KEY)) == 200
    assert asyncio.run(ask("rbadmin_another-key-0123456789")) == 303


def test_logging_out_takes_the_cookie_back(http: httpx.Client) -> None:
    answer = send(http, "/console/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/login")
    assert COOKIE not in http.cookies
    assert http.get("/console").status_code == 303


@pytest.mark.parametrize("token", [None, "", "0" * 64, "other"])
def test_a_form_without_its_sessions_token_does_nothing(
    site: ApiSite, http: httpx.Client, cluster: Submissions, token: str | None
) -> None:
    if token == "other":
        own = sessions_of(site)
        token = own.form_token(own.begin(operator=True))
    before = list(cluster.submitted)
    for _, path in console_routes("POST"):
        if path != "/console/login":
            data = {"tenant": "acme", "text": "change"} | ({} if token is None else {"token": token})
            answer = http.post(path, data=data)
            assert answer.status_code == 403
            assert "reload the page" in answer.text
    assert cluster.submitted == before
    assert http.get("/console").status_code == 200, "nor is the session ended"


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{}", "application/json", 400),
        (b"a=1", "text/plain", 400),
        (b"a=1&" * 500, "application/x-www-form-urlencoded", 400),
        (b"a=" + b"x" * 600_000, "application/x-www-form-urlencoded", 413),
        (b"\xff\xfe%ff=%zz", "application/x-www-form-urlencoded", 403),
    ],
)
def test_a_form_that_cannot_be_read_is_refused(
    http: httpx.Client, content: bytes, kind: str, status: int
) -> None:
    answer = http.post("/console/search", content=content, headers={"content-type": kind})
    assert answer.status_code == status


class Page(HTMLParser):
    """What matters of a page for scripts, forms and readers."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def furnished(site: ApiSite, cluster: Submissions) -> str:
    """A site with an ended job, a dead letter with hostile words, a running job and a baseline; its id."""
    with httpx.Client(base_url=site.url, timeout=30) as http:
        site.app.state.console.attempts = LoginAttempts()
        assert log_in(http).status_code == 303
        assert send(http, "/console/tenants/acme/backfill").status_code == 303
        SteppedJob(site, "acme", cluster.submitted[-1]).run()
        add_dead_letter(site, "acme", HOSTILE, HOSTILE)
        add_rows(site, "acme", 500, first=1000)
        assert send(http, "/console/tenants/acme/backfill").status_code == 303
        job = SteppedJob(site, "acme", cluster.submitted[-1])
        job.step(2)
    measured = ProviderMeasurement(HOSTILE, HOSTILE, "s", 10.0, 100.0, 1.0, 2.0, 0.1, 0.2)
    save_baseline(site.settings.home, Baseline("2026-11-20", HOSTILE, (measured,)))
    return cluster.submitted[-1]


SHOWN = [
    *(f"/console/{path}".rstrip("/") for path, _ in PAGES),
    "/console/tenants/acme",
    "/console/jobs/JOB",
    "/console/dead-letters?tenant=acme",
    "/console/search?tenant=acme",
    "/console/nothing",
    "/console/jobs/none",
    "/console/tenants/nobody",
    "/console/tenants?page=x",
]


@pytest.mark.parametrize("path", SHOWN)
def test_a_page_runs_nothing_that_is_not_ours_and_every_form_is_protected(
    http: httpx.Client, furnished: str, path: str
) -> None:
    answer = http.get(path.replace("JOB", furnished))
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert (answer.headers["cache-control"], answer.headers["x-frame-options"]) == ("no-store", "DENY")
    assert answer.headers["x-content-type-options"] == "nosniff"
    page = Page(answer.text)
    assert [tag for tag, _ in page.tags if tag == "style"] == []
    assert [
        name for _, found in page.tags for name in found if name == "style" or name.startswith("on")
    ] == []
    for tag, attribute in (("script", "src"), ("link", "href"), ("form", "action"), ("a", "href")):
        for found in page.all(tag):
            address = found.get(attribute, "/console")
            assert address is not None
            assert address.startswith(("/console", "?", "#")), (tag, address)
    posts = [form for form in page.all("form") if form.get("method") == "post"]
    tokens = [field for field in page.all("input") if field.get("name") == "token"]
    assert len(posts) == len(tokens) > 0
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", SHOWN)
def test_what_others_wrote_is_shown_as_text(http: httpx.Client, furnished: str, path: str) -> None:
    answer = http.get(path.replace("JOB", furnished))
    assert "<script>alert" not in answer.text
    assert "&amp;49" not in answer.text, "a template ran what was a value"
    if path in ("/console/dead-letters", "/console/providers"):
        assert HOSTILE in Page(answer.text).text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/console/nothing", 404),
        ("/console/tenants/nobody", 404),
        ("/console/tenants/No Body!", 404),
        ("/console/jobs/none", 404),
        ("/console/dead-letters?tenant=nobody", 404),
        ("/console/tenants?page=0", 400),
        ("/console/tenants?page=x", 400),
        ("/console/static/nothing.css", 404),
        ("/console/static/..%2frendering.py", 404),
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(http: httpx.Client, path: str, status: int) -> None:
    answer = http.get(path)
    assert answer.status_code == status
    assert 'role="alert"' in answer.text


def test_the_pages_show_the_ledgers_figures(site: ApiSite, http: httpx.Client, furnished: str) -> None:
    job = job_progress(site.workspace.ledger, furnished)
    assert 0 < job.processed_records < job.total_records
    progress = f"{job.processed_records:,} of {job.total_records:,}"
    for path in ("/console", "/console/jobs", f"/console/jobs/{furnished}", "/console/tenants/acme"):
        shown = Page(http.get(path).text)
        assert progress in shown.text
        bars = [bar for bar in shown.all("progress") if furnished in str(bar["aria-label"])]
        assert [(bar["value"], bar["max"]) for bar in bars] == [
            (str(job.processed_records), str(job.total_records))
        ]
    letters = Page(http.get("/console/dead-letters").text).text
    assert "2 open: 2 ItemError" in letters
    assert "Odd." not in letters
    assert "$1.25" in Page(http.get("/console/providers").text).text


def test_coverage_is_counted_by_row_and_given_in_percent(
    site: ApiSite, http: httpx.Client, globex: str
) -> None:
    add_rows(site, globex, 8, first=50_000 + site.tenant(globex).client_id * 1000)
    add_rows(site, globex, 1, first=49_999, title=" ")
    with site.workspace.source.begin() as connection:
        connection.execute(text(f"UPDATE {TABLE} SET title = NULL WHERE id = 49999"))
    lines: list[str] = []

    def is_counted() -> bool:
        """A page does not wait for long."""
        shown = http.get(f"/console/tenants/{globex}").text
        lines[:] = re.findall(rf'<tr id="index-{TABLE}-content">(.*?)</tr>', shown, re.DOTALL)
        return bool(lines)

    wait_for(is_counted)
    (line,) = lines
    cells = re.sub(r"<[^>]+>", " ", line).split()
    assert cells == [TABLE, "content", "0.0", "%", "0.0", "%", "9", *"000100", "no", "index", "yet"]
    listed = http.get("/console/tenants", params={"name": globex}).text
    assert "1 tenant;" in listed
    assert "0.0 %" in listed


def job_in(answer: httpx.Response, done: str) -> str:
    found = re.fullmatch(rf"/console/jobs/(job-\w+)\?done={done}", answer.headers.get("location", ""))
    assert answer.status_code == 303, answer.text
    assert found is not None, answer.headers
    return found[1]


def state(site: ApiSite, job_id: str) -> JobState:
    return job_progress(site.workspace.ledger, job_id).state


def test_a_job_is_started_cancelled_and_resumed(
    site: ApiSite, http: httpx.Client, cluster: Submissions, globex: str
) -> None:
    job = job_in(send(http, f"/console/tenants/{globex}/backfill"), "started")
    assert cluster.submitted[-1] == job
    again = send(http, f"/console/tenants/{globex}/backfill")
    assert again.status_code == 409
    assert job in again.text
    driver = SteppedJob(site, globex, job)
    assert job_in(send(http, f"/console/jobs/{job}/cancel"), "cancelled") == job
    assert state(site, job) is JobState.CANCEL_REQUESTED
    assert "is being cancelled" in send(http, f"/console/jobs/{job}/resume").text
    driver.finish(JobState.CANCELLED)
    assert "The job stops at the end" in http.get(f"/console/jobs/{job}?done=cancelled").text
    assert job_in(send(http, f"/console/jobs/{job}/resume"), "resumed") == job
    assert state(site, job) is JobState.PENDING
    assert cluster.submitted[-2:] == [job, job]
    send(http, f"/console/jobs/{job}/cancel")
    assert state(site, job) is JobState.CANCELLED
    for action in ("cancel", "resume"):
        assert send(http, f"/console/jobs/none/{action}").status_code == 404


def test_dead_letters_are_redriven_as_a_job(site: ApiSite, http: httpx.Client, globex: str) -> None:
    nothing = send(http, "/console/dead-letters/redrive", tenant=globex)
    assert nothing.headers["location"] == "/console/dead-letters?done=nothing"
    assert "There were no open dead letters." in http.get(nothing.headers["location"]).text
    add_dead_letter(site, globex, "7")
    job = job_in(send(http, "/console/dead-letters/redrive", tenant=globex), "redriven")
    assert job_progress(site.workspace.ledger, job).kind == "redrive"
    assert job_progress(site.workspace.ledger, job).tenant == globex
    assert send(http, "/console/dead-letters/redrive", tenant="nobody").status_code == 404
    assert send(http, "/console/dead-letters/redrive").status_code == 404


def test_a_lost_job_and_growing_dead_letters_fire(site: ApiSite, http: httpx.Client, globex: str) -> None:
    for record in range(LETTERS):
        add_dead_letter(site, globex, str(record))
    job = job_in(send(http, f"/console/tenants/{globex}/backfill"), "started")
    with site.workspace.ledger.begin() as connection:
        connection.execute(
            jobs_table.update()
            .where(jobs_table.c.job_id == job)
            .values(
                heartbeat_at=datetime(2026, 1, 1, tzinfo=UTC), created_at=datetime(2026, 1, 1, tzinfo=UTC)
            )
        )
    site.app.state.console.observations._kept = None
    shown = Page(http.get("/console/alerts").text).text
    assert f"{globex}: job {job} moved last" in shown
    assert f"{LETTERS} of {globex}" in shown
    send(http, f"/console/jobs/{job}/cancel")


def test_a_search_shows_what_the_api_finds(site: ApiSite, http: httpx.Client, furnished: str) -> None:
    key = site.workspace.keys.add(site.tenant("acme")).text
    with site.http(key) as tenant:
        hits = tenant.post("/v1/search", json={"text": "change number 7", "limit": 20}).json()["hits"]
    answer = send(http, "/console/search", tenant="acme", text="change number 7", vector_type="content")
    assert answer.status_code == 200
    shown = re.findall(
        r'<span class="score">([\d.]+)</span> (\w+) (\S+)</h3>\s*<p class="snippet">', answer.text
    )
    assert shown == [(f"{hit['score']:.3f}", hit["table"], hit["id"]) for hit in hits]
    assert "change number 7" in Page(answer.text).text
    assert 'value="change number 7"' in answer.text


def test_a_search_by_words_too_and_in_some_tables(http: httpx.Client, furnished: str) -> None:
    fields = {"tenant": "acme", "text": HOSTILE, "vector_type": "content", "tables": [TABLE], "hybrid": "yes"}
    answer = send(http, "/console/search", **fields)
    assert answer.status_code == 200
    assert "only the order counts" in answer.text
    assert HOSTILE in Page(answer.text).text
    assert "<script>alert" not in answer.text
    assert re.search(rf'value="{TABLE}" checked', answer.text)


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"text": " "}, 400, "The search text is empty."),
        ({"text": "x" * 40_000}, 400, "text"),
        ({"tenant": "nobody"}, 404, "There is no tenant"),
        ({"tables": ["nowhere"]}, 404, "nowhere"),
        ({"vector_type": "smell"}, 400, "vector_type"),
        ({"vector_type": "summary"}, 404, "summary"),
    ],
)
def test_a_search_that_cannot_be_says_why(
    http: httpx.Client, furnished: str, fields: dict[str, object], status: int, said: str
) -> None:
    plain: dict[str, object] = {"tenant": "acme", "text": "change", "vector_type": "content"}
    answer = send(http, "/console/search", **{**plain, **fields})
    assert answer.status_code == status
    problem = re.findall(r'<p class="problem" role="alert">(.*?)</p>', answer.text)
    assert len(problem) == 1
    assert said in problem[0]


def test_a_search_counts_against_the_tenants_limits(site: ApiSite, http: httpx.Client, globex: str) -> None:
    site.workspace.registry.set_limits(globex, {"requests_per_minute": 1})
    fields = {"tenant": globex, "text": "change", "vector_type": "content"}
    statuses = [send(http, "/console/search", **fields).status_code for _ in range(3)]
    assert statuses[0] == 404  # it has no index
    assert 429 in statuses


def test_static_files_are_kept_by_browsers_until_they_change(visitor: httpx.Client) -> None:
    login = visitor.get("/console/login").text
    for name, kind in (
        ("console.css", "text/css"),
        ("console.js", "text/javascript"),
        ("icon.svg", "image/svg"),
    ):
        (address,) = re.findall(rf'"(/console/static/{re.escape(name)}\?\w+)"', login)
        answer = visitor.get(address)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "immutable" in answer.headers["cache-control"]


def test_the_console_is_in_no_document_of_the_api(visitor: httpx.Client) -> None:
    assert "/console" not in visitor.get("/openapi.json").text


def test_the_set_up_is_checked(http: httpx.Client) -> None:
    shown = Page(http.get("/console/setup").text).text
    for name in ("Database", "Vectors", "Model", "Encoder", "Gateway", "Providers", "Processor"):
        assert name in shown
    assert "ledger at revision" in shown
    assert "fails" not in shown
