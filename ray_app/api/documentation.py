"""The OpenAPI document, and a page that shows it without fetching anything from elsewhere."""

from __future__ import annotations

import html
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.responses import HTMLResponse


class ErrorDetail(BaseModel):
    """What went wrong; ``param`` names the part of the request at fault."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


_REASONS: Final = {
    400: "The request cannot be used; `param` names the part at fault.",
    401: "The API key is missing, wrong or revoked.",
    403: "The key may not do this.",
    404: "There is no such thing, or none of this tenant's.",
    405: "The address does not take this method.",
    409: "The request clashes with what is there.",
    413: "The request is larger than one may be.",
    429: "A limit of the tenant's is used up; `retry-after` says when it will not be.",
    500: "The server failed; its log tells why, by the `x-request-id`.",
    503: "The server, or something it needs, cannot answer now.",
}
#: For ``responses`` of a router: what any route may answer besides its success.
DOCUMENTED_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorBody, "description": reason} for status, reason in _REASONS.items()
}


def add_documentation(app: FastAPI) -> None:
    """``/openapi.json`` without the 422 that FastAPI adds by itself, and ``/docs``."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = make()
            for operations in schema["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            for unused in ("HTTPValidationError", "ValidationError"):
                schema.get("components", {}).get("schemas", {}).pop(unused, None)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to change the document

    @app.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def docs() -> HTMLResponse:
        return HTMLResponse(_page(app.openapi()))


def _page(schema: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{method.upper()}</code></td><td><code>{html.escape(path)}</code></td>"
        f"<td>{html.escape(operation.get('summary', ''))}</td></tr>"
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Rowbeam API</title>'
        "<style>body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "td{padding:.2rem 1rem .2rem 0;vertical-align:top}</style>"
        "<h1>Rowbeam API</h1><p>Every parameter, answer and error is in"
        ' <a href="openapi.json">openapi.json</a>, which any OpenAPI viewer shows.</p>'
        f"<table>{rows}</table></html>"
    )
