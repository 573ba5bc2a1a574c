"""How a request proves who sends it, and how a route asks for it.

Everything under ``/v1`` needs a key. It is checked before the body is read, so that a stranger's
request costs no more than its headers.
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ray_app.api.authentication import Admin, Principal
from ray_app.api.errors import error_response
from ray_app.api.services import Services
from ray_app.errors import AuthError, PermissionDenied, RowbeamError
from ray_app.logs import tenant

_PROTECTED: Final = "/v1/"
# The header's check is done by the middleware: these two describe it in the OpenAPI document.
_BEARER: Final = HTTPBearer(auto_error=False, scheme_name="bearer", description="The API key.")
_HEADER: Final = APIKeyHeader(
    name="api-key",
    auto_error=False,
    scheme_name="api-key",
    description="The API key, as Azure's clients send it.",
)


class AuthenticationMiddleware:
    """Puts the caller in ``request.state.caller``, or answers 401."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", "")).removeprefix(str(scope.get("root_path", "")))
        if scope["type"] != "http" or not f"{path}/".startswith(_PROTECTED):
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._caller(Headers(scope=scope))
        except RowbeamError as error:
            await error_response(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        if isinstance(caller, Principal):
            tenant.set(caller.scope.incarnation)
        await self._app(scope, receive, send)

    async def _caller(self, headers: Headers) -> Principal | Admin:
        key = _key_of(headers)
        authenticator = self._services.authenticator
        known = authenticator.recall(key)
        if known is not None:
            return known
        return await self._services.in_thread(authenticator.authenticate, key)


def _key_of(headers: Headers) -> str:
    """The key in ``Authorization: Bearer`` or ``api-key``. Raises AuthError."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    if headers.get("api-key"):
        return headers["api-key"]
    raise AuthError("The request has no API key.", hint='Send it in a header, "Authorization: Bearer <key>".')


async def tenant_of(
    request: Request,
    _bearer: Annotated[object, Security(_BEARER)],
    _header: Annotated[object, Security(_HEADER)],
) -> Principal:
    """The tenant's caller. Raises PermissionDenied for the admin key."""
    caller: Principal | Admin = request.state.caller
    if isinstance(caller, Admin):
        raise PermissionDenied("The admin key reads and writes no tenant's data.", hint="Use a tenant's key.")
    return caller


async def admin_of(
    request: Request,
    _bearer: Annotated[object, Security(_BEARER)],
    _header: Annotated[object, Security(_HEADER)],
) -> Admin:
    """The operator. Raises PermissionDenied for a tenant's key."""
    caller: Principal | Admin = request.state.caller
    if isinstance(caller, Principal):
        raise PermissionDenied("A tenant's key cannot manage tenants.", hint="Use the admin key.")
    return caller


FromTenant = Annotated[Principal, Depends(tenant_of)]
FromAdmin = Annotated[Admin, Depends(admin_of)]
