"""Tenants with the same rows, each with a secret of its own in every text, and the judge of what they see."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from tests.support.api_site import ApiSite

#: Names that a careless comparison, prefix or separator would confuse.
NAMES: Final = ("acme", "acme-1", "acme.1", "acme_1", "acme-10", "acm")
#: Never attacks; what it sees must be the same to the last bit, whatever the others do.
VICTIM: Final = "acme"
TABLE: Final = "projects"
TWIN_IDS: Final = tuple(f"p-{number}" for number in range(12))
TOPICS: Final = (
    "login page",
    "billing export",
    "search index",
    "payment queue",
    "mobile push",
    "audit trail",
)


class LeakError(AssertionError):
    """A tenant was shown something of another."""


@dataclass
class Member:
    """One tenant: what it knows, and the word that nobody else may ever be shown."""

    name: str
    client_id: int
    key: str
    canary: str
    own_ids: tuple[str, ...]
    job_id: str = ""

    def text(self, number: int) -> str:
        return f"{TOPICS[number % len(TOPICS)]} project {number} {self.canary}"

    def rows(self) -> list[dict[str, Any]]:
        ids = [*TWIN_IDS, *self.own_ids]
        return [
            {"id": record, "name": self.text(number), "status": "open", "key": self.canary}
            for number, record in enumerate(ids)
        ]


@dataclass
class Arena:
    """The members on one server, and a count of what was tried."""

    site: ApiSite
    client: httpx.Client
    members: dict[str, Member] = field(default_factory=dict)
    attempts: int = 0
    refused: int = 0

    @classmethod
    def filled(cls, site: ApiSite, client: httpx.Client) -> Arena:
        arena = cls(site, client)
        for number, name in enumerate(NAMES, start=1):
            arena.join(name, client_id=number * 11)
        return arena

    def join(self, name: str, client_id: int) -> Member:
        """Add the tenant with its rows; a new one of an old name has new secrets."""
        key = self.site.add_tenant(name, client_id=client_id, **UNLIMITED)
        tag = secrets.token_hex(4)
        own = tuple(f"only-{tag}-{number}" for number in range(3))
        member = Member(name, client_id, key, f"canary{secrets.token_hex(8)}", own)
        self.members[name] = member
        answer = self.send(member.key, "PUT", f"/v1/tables/{TABLE}/records", json={"records": member.rows()})
        assert answer.status_code == 200, answer.text
        return member

    def send(self, key: str | None, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {**({"authorization": f"Bearer {key}"} if key is not None else {})}
        headers |= options.pop("headers", {})
        # A raw path: httpx would tidy dots and escapes away.
        url = httpx.URL(self.site.url).copy_with(raw_path=path.encode("ascii", "replace"))
        return self.client.request(method, url, headers=headers, **options)

    def admin(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.send(self.site.admin_key, method, path, **options)

    def attack(self, attacker: Member, method: str, path: str, **options: Any) -> httpx.Response:
        """Send with the attacker's key, unless ``headers`` bring another, and judge the answer."""
        answer = self.send(attacker.key, method, path, **options)
        self.attempts += 1
        self.refused += answer.status_code >= 400
        self.judge(attacker, answer)
        return answer

    def judge(self, attacker: Member, answer: httpx.Response) -> None:
        """Raises LeakError when the answer shows anything of another, AssertionError for any 5xx."""
        shown = answer.text + str(answer.headers.multi_items())
        for member in self.members.values():
            if member is not attacker and member.canary in shown:
                raise LeakError(f"{attacker.name} was shown a text of {member.name}: {answer.request.url}")
        if answer.status_code == 200 and answer.request.url.path == "/v1/search":
            for hit in answer.json()["hits"]:
                if attacker.canary not in hit["snippet"]:
                    raise LeakError(f"{attacker.name} found a row without its own mark: {hit}")
        assert answer.status_code < 500, f"{answer.request.method} {answer.request.url}: {answer.text}"

    def view(self, name: str = VICTIM) -> list[Any]:
        """All that a tenant can see of its rows: searches with their scores, states, coverage, usage."""
        member = self.members[name]
        seen: list[Any] = []
        for topic in TOPICS:
            for hybrid in (False, True):
                query = {"text": topic, "tables": [TABLE], "limit": 50, "hybrid": hybrid}
                answer = self.send(member.key, "POST", "/v1/search", json=query)
                assert answer.status_code == 200, answer.text
                seen.append(answer.json()["hits"])
        for record in (*TWIN_IDS, *member.own_ids):
            answer = self.send(member.key, "GET", f"/v1/tables/{TABLE}/records/{record}")
            assert answer.status_code == 200, answer.text
            seen.append(answer.json())
        return seen


#: Limits that attacks do not run into: a refusal for being too fast would prove nothing.
UNLIMITED: Final = {
    "requests_per_minute": 10_000_000,
    "tokens_per_minute": 1_000_000_000,
    "concurrent_requests": 1_000,
}
