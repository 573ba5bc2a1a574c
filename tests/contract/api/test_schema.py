"""Every operation of ``/openapi.json``, called with data made from its own schema, good and spoilt: no 5xx,
and no status, content type or body that the document does not foresee."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ray_app.settings import Settings
from tests.contract.api.test_backfills import Submissions, add_rows, started_id
from tests.support.api_site import ApiSite

Operation = APIOperation[Any, Any, Any, Any]

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
#: Cases of one operation for each caller and kind of data: many where the caller may do it, few where
#: it is refused whatever it sends.
MANY, FEW = 10, 1
#: What only the operator may do.
ADMIN: Final = ("/v1/tenants", "/v1/erasures")
CREDENTIALS: Final = ("authorization", "api-key")


@pytest.fixture
def site(make_settings: Callable[..., Settings]) -> Iterator[ApiSite]:
    with ApiSite(make_settings(), jobs=Submissions()) as site:
        yield site


@pytest.fixture
def known(site: ApiSite, key: str) -> dict[str, str]:
    """What names something, by parameter: a made-up value hardly ever does."""
    add_rows(site, 3)
    row = {"id": 2, "title": "two"}
    with site.http(site.admin_key) as admin, site.http(key) as http:
        victim = admin.post("/v1/tenants", json={"name": "victim"}).json()
        http.put("/v1/tables/pull_requests/records", json={"records": [row]}).raise_for_status()
        return {
            "name": "victim",
            "key_id": victim["key"]["key_id"],
            "job_id": started_id(http),
            "table": "pull_requests",
            "record_id": "2",
            "model": site.services.backend.spaces()[0].model,
        }


def operations(site: ApiSite) -> list[Operation]:
    """All of them; those that delete come last."""
    schema = schemathesis.openapi.from_url(f"{site.url}/openapi.json")
    found: list[Operation] = [result.ok() for result in schema.get_all_operations()]
    return sorted(found, key=lambda operation: operation.method.upper() == "DELETE")


class Caller:
    """Calls operations as one principal and counts the answers."""

    def __init__(self, name: str, key: str, known: dict[str, str]) -> None:
        self._name = name
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._known = known
        self.answers: Counter[tuple[str, int]] = Counter()

    def try_out(self, operation: Operation, mode: GenerationMode) -> None:
        """Raises what schemathesis finds; Unsatisfiable when there is nothing to spoil."""

        @settings(
            max_examples=MANY if self._may(operation) else FEW,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), named=st.booleans())
        def call(case: Case, named: bool) -> None:
            self._prepare(case, named=named)
            response = case.call(headers=self._headers, timeout=30)
            self.answers[operation.label, response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        call()

    def _may(self, operation: Operation) -> bool:
        return self._name == ("admin" if operation.path.startswith(ADMIN) else "tenant")

    def _prepare(self, case: Case, *, named: bool) -> None:
        for name in [name for name in case.headers if name.lower() in CREDENTIALS]:
            del case.headers[name]
        if not named:
            return
        for name in case.path_parameters:
            case.path_parameters[name] = self._known[name]
        if isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = self._known["model"]


@pytest.mark.parametrize("name", ["tenant", "admin", "nobody"])
def test_every_answer_is_one_that_the_document_foresees(
    site: ApiSite, key: str, known: dict[str, str], name: str
) -> None:
    caller = Caller(name, {"tenant": key, "admin": site.admin_key, "nobody": ""}[name], known)
    found = []
    for operation in operations(site):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                caller.try_out(operation, mode)
            except Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE, operation.label  # it takes nothing to spoil
            except FailureGroup as failure:
                found.append(f"{operation.label}, {mode} data: {failure}")
    assert not found, "\n\n".join(found)
    _check_reach(name, caller.answers)


def _check_reach(name: str, answers: Counter[tuple[str, int]]) -> None:
    """That the calls came as far as they should: all are refused, or most operations have succeeded."""
    labels = {label for label, _ in answers if "/v1/" in label}
    succeeded = {label for label, status in answers if status < 300 and "/v1/" in label}
    assert len(labels) > 20
    if name == "nobody":
        assert succeeded == set()
    else:
        managing = {label for label in labels if any(path in label for path in ADMIN)}
        mine = managing if name == "admin" else labels - managing
        assert succeeded <= mine
        missed = mine - succeeded
        assert len(missed) <= len(mine) // 4, sorted(missed)


def test_every_operation_documents_its_errors(site: ApiSite) -> None:
    with site.http() as client:
        document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if path.startswith("/v1/"):
                assert {"400", "401", "403", "404", "429", "503"} <= set(operation["responses"]), (
                    method,
                    path,
                )
                assert "422" not in operation["responses"]
                assert operation["summary"]
