"""The demo's second half: the HTTP server, as a service that extracts rows would use it."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any, Final

import httpx

from ray_app.cli import rendering
from ray_app.cli.demo_story import Story
from ray_app.client import RowbeamClient
from ray_app.errors import RowbeamError
from ray_app.reports import NewTenant, SearchHit
from ray_app.sample.companies import COMPANIES, load_company
from ray_app.sample.demo_data import demo_tables
from ray_app.settings import Settings
from ray_app.stack.admin_key import ensure_admin_key
from ray_app.stack.embedded import Stack
from ray_app.stack.ports import free_port
from ray_app.tenants import Limits

#: Rows pushed through the client, of ids that no row of the tables has.
PUSHED: Final = 200
PUSHED_IDS: Final = 3_000_001
_SEED: Final = 2
QUESTION: Final = "a customer sees the wrong balance after a refund"
#: Requests a minute of the tenant that is shown a 429.
FEW: Final = 3
_SHOWN: Final = 300


def serve_and_push(story: Story, settings: Settings, tenant: NewTenant) -> str:
    """Start the server, push rows and search them through the client, and show three refusals; its address.

    Raises:
        RowbeamError: the server does not start, or does not do what it should.
    """
    story.step("Start the HTTP server and push rows through the client")
    status = Stack(settings.model_copy(update={"http_port": free_port()})).up(server=True)
    if status.server is None or status.server.not_ready:
        raise RowbeamError(f"The server is not ready: {status.server}.", hint="Run rowbeam doctor.")
    url = status.server.url
    story.say(f"It listens at {url}, its documentation is at {url}/docs.")
    with RowbeamClient(url, tenant.api_key.text) as client:
        rows = _rows()
        outcomes = [dict(client.upsert("issues", rows).counts) for _ in range(2)]
        hits = client.search(QUESTION, tables=["issues"], limit=100)
    ids = {str(row["id"]) for row in rows}
    found = [SearchHit(hit.table, hit.id, hit.score, hit.snippet, hit.data) for hit in hits if hit.id in ids]
    if outcomes[0].get("embedded", 0) < 1 or "embedded" in outcomes[1] or not found:
        raise RowbeamError(f"Pushed rows were not embedded once and found: {outcomes}, {len(found)} hits.")
    story.say(
        f"{tenant.tenant.name} pushes {len(rows)} issues: {_listed(outcomes[0])}.\n"
        f"It pushes them again: {_listed(outcomes[1])}, no text embedded.\n"
        f'It searches: "{QUESTION}". Of the pushed rows it finds first:'
    )
    story.table(rendering.hits(found[:3]))
    story.document["server"] = {"url": url, "pushed": len(rows), "outcomes": outcomes, "hits": found[:3]}
    _show_refusals(story, url, settings, tenant)
    return url


def _rows() -> list[dict[str, Any]]:
    """Active issues of the first company that are in no table."""
    issues = demo_tables(load_company(COMPANIES[0]), seed=_SEED, first_id=PUSHED_IDS)["issues"]
    return [row for row in issues if row.get("active", True)][:PUSHED]


def _show_refusals(story: Story, url: str, settings: Settings, tenant: NewTenant) -> None:
    story.step("What a refusal looks like")
    key, name = tenant.api_key.text, tenant.tenant.name
    admin_key = ensure_admin_key(settings).get_secret_value()
    query = {"text": QUESTION, "tables": ["issues"]}
    with closing(httpx.Client(base_url=url, timeout=60, trust_env=False)) as http:

        def send(what: str, used: str, method: str, path: str, body: Any = None) -> httpx.Response:
            answer = http.request(method, path, json=body, headers={"authorization": f"Bearer {used}"})
            if not answer.is_success:
                story.say(f"{what}: {answer.status_code}\n{_shown(answer)}")
                refusals.append({"what": what, "status": answer.status_code, "body": answer.json()})
            return answer

        refusals: list[dict[str, Any]] = []
        send("A key that is not one", "rb_00000000_wrong", "POST", "/v1/search", query)
        send("A tenant's key where tenants are managed", key, "GET", "/v1/tenants")
        limits = {"requests_per_minute": FEW}
        send("Limits", admin_key, "PATCH", f"/v1/tenants/{name}/limits", limits).raise_for_status()
        for _ in range(2 * FEW):
            if not send(f"More than {FEW} requests a minute", key, "POST", "/v1/search", query).is_success:
                break
        usual = {"requests_per_minute": Limits().requests_per_minute}
        send("Limits", admin_key, "PATCH", f"/v1/tenants/{name}/limits", usual).raise_for_status()
    with RowbeamClient(url, key) as client:
        # The bucket of the few is empty until a request finds the usual limits; it shall not be a newcomer's.
        client.search(QUESTION, tables=["issues"], limit=1)
    statuses = [refusal["status"] for refusal in refusals]
    if statuses != [401, 403, 429]:
        raise RowbeamError(f"The refusals were {statuses}, not 401, 403 and 429.")
    story.document["refusals"] = refusals


def _shown(answer: httpx.Response) -> str:
    """The body, and the header that says when to come back, as a caller gets them."""
    lines = [f"  {json.dumps(answer.json())[:_SHOWN]}"]
    if "retry-after" in answer.headers:
        lines.append(f"  Retry-After: {answer.headers['retry-after']}")
    return "\n".join(lines)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(counts.items()))
