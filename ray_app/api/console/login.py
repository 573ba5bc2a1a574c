"""Logging in and out, and the files that the login form needs too: what is open to everybody."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from ray_app.api.authentication import Admin
from ray_app.api.console.access import (
    COOKIE,
    PATH,
    ConsoleRoute,
    FromOperator,
    base_of,
    check_form,
    drop_cookie,
    error_page,
    first,
    local_path,
    page,
    see_other,
    set_cookie,
)
from ray_app.api.console.state import Console, FromConsole
from ray_app.console.rendering import STATIC, static_file
from ray_app.console.sessions import Session

log = logging.getLogger(__name__)
router = APIRouter(prefix=PATH, route_class=ConsoleRoute, include_in_schema=False)


@router.get("/login")
async def show_login(
    request: Request, console: FromConsole, wanted: Annotated[str, Query(alias="next")] = ""
) -> Response:
    session = await _session(request, console)
    if session is not None and session.operator:
        return RedirectResponse(local_path(request, wanted), 303)
    return await _form(request, console, session, local_path(request, wanted))


@router.post("/login")
async def log_in(request: Request, console: FromConsole) -> Response:
    """A form of an own session, not too many tries, then the key; a new session when all is right."""
    session = await _session(request, console)
    if session is None:
        return await _form(request, console, None, base_of(request), 403, "The form is too old. Try again.")
    form = await check_form(request, console, session)
    wanted = local_path(request, first(form, "next"))
    address = request.client.host if request.client else ""
    wait = console.attempts.enter(address)
    if wait > 0:
        log.warning("Too many console logins are tried from %s", address)
        problem = f"Too many tries. Wait {wait:.0f} s."
        response = await _form(request, console, session, wanted, 429, problem)
        response.headers["retry-after"] = f"{wait + 1:.0f}"
        return response
    key = first(form, "key").strip()
    if not isinstance(console.services.authenticator.recall(key), Admin):
        log.warning("A console login from %s was refused", address)
        return await _form(request, console, session, wanted, 401, "That is not the admin key.")
    log.info("An operator logged in to the console from %s", address)
    sessions = await console.sessions()
    done = RedirectResponse(wanted, 303)
    set_cookie(request, done, sessions.cookie(sessions.begin(operator=True)))
    return done


@router.post("/logout")
async def log_out(request: Request, _operator: FromOperator) -> Response:
    response = see_other(request, "/login")
    drop_cookie(request, response)
    return response


@router.get("/static/{name}")
async def get_static(request: Request, name: str) -> Response:
    """Kept by browsers for good: its address changes with it."""
    if name not in STATIC:
        return await error_page(request, 404, "There is no such file.")
    content, _ = static_file(name)
    headers = {"cache-control": "public, max-age=31536000, immutable"}
    return Response(content, media_type=STATIC[name], headers=headers)


async def _session(request: Request, console: Console) -> Session | None:
    return (await console.sessions()).read(request.cookies.get(COOKIE, ""))


async def _form(
    request: Request,
    console: Console,
    session: Session | None,
    wanted: str,
    status: int = 200,
    problem: str | None = None,
) -> Response:
    """The login form, in a visitor's session; in a new one when there is none."""
    sessions = await console.sessions()
    visit = session if session is not None and not session.operator else sessions.begin(operator=False)
    request.state.session = visit
    response = await page(request, "login.html", status=status, next=wanted, problem=problem)
    if visit is not session:
        set_cookie(request, response, sessions.cookie(visit))
    return response
