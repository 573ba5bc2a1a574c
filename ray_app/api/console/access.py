"""Who may see the console, and how every answer of it is sent."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import parse_qs, quote

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ray_app.api.console.state import Console, FromConsole
from ray_app.api.errors import say
from ray_app.api.validation import describe
from ray_app.console.formats import moment
from ray_app.console.rendering import Frame, render
from ray_app.console.sessions import IDLE, Session
from ray_app.errors import AuthError, InputError, PermissionDenied, RowbeamError, TooLarge

PATH: Final = "/console"
COOKIE: Final = "rowbeam_console"
#: Sent by the page's own look for newer figures, which must not keep a session alive.
REFRESH: Final = "x-console-refresh"
#: Bytes and fields of a form.
_LARGEST_FORM: Final = 512 * 1024
_MOST_FIELDS: Final = 200
_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

Form = Mapping[str, Sequence[str]]


class ConsoleRoute(APIRoute):
    """A route whose errors are pages, and whose every answer has the headers that keep others out."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except AuthError as error:
                response = _refuse(request, error)
            except RowbeamError as error:
                status, message = say(error)
                response = await error_page(request, status, message)
            except RequestValidationError as error:
                response = await error_page(request, 400, describe(error.errors()).message)
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            response.headers.setdefault("cache-control", "no-store")
            renewed: str | None = getattr(request.state, "renewed", None)
            if renewed is not None and "set-cookie" not in response.headers:
                set_cookie(request, response, renewed)
            return response

        return answer


async def operator_of(request: Request, console: FromConsole) -> Session:
    """The operator's session; for all routes but the login's.

    A form, which alone can change anything, has to carry the session's token.

    Raises:
        AuthError: there is no session, or it has ended.
        PermissionDenied: the form is not of this session.
    """
    sessions = await console.sessions()
    session = sessions.read(request.cookies.get(COOKIE, ""))
    if session is None or not session.operator:
        raise AuthError("Log in first: there is no session, or it has ended.")
    if request.method != "GET":
        await check_form(request, console, session)
    elif REFRESH not in request.headers and (renewed := sessions.renew(session)):
        request.state.renewed = sessions.cookie(renewed)
    request.state.session = session
    return session


async def check_form(request: Request, console: Console, session: Session) -> Form:
    """The form that was sent, which the routes then find in ``request.state.form``.

    Raises:
        InputError, TooLarge: it cannot be read.
        PermissionDenied: its token is not that of ``session``.
    """
    form = await _read_form(request)
    if not (await console.sessions()).is_form_token(session, first(form, "token")):
        raise PermissionDenied("The form is not of this session. Go back, reload the page and send it again.")
    request.state.form = form
    return form


async def form_of(request: Request, _operator: FromOperator) -> Form:
    form: Form = request.state.form
    return form


FromOperator = Annotated[Session, Depends(operator_of)]
FromForm = Annotated[Form, Depends(form_of)]


def first(form: Form, name: str) -> str:
    """The field's value; "" when it is missing."""
    return next(iter(form.get(name, ())), "")


def base_of(request: Request) -> str:
    """The console's path as the browser sees it."""
    return f"{request.scope.get('root_path', '')}{PATH}"


def local_path(request: Request, given: str) -> str:
    """``given`` when it is a page of the console, else the first: a login leads nowhere else."""
    base = base_of(request)
    plain = given.isascii() and given.isprintable() and not set(given) & set("\\\"'<>:@ ")
    inside = given == base or given.startswith((f"{base}/", f"{base}?"))
    return given if plain and inside and "/../" not in f"{given}/" else base


async def page(request: Request, template: str, *, status: int = 200, **content: object) -> Response:
    """A page of this session; of nobody's when there is none."""
    console: Console = request.app.state.console
    session: Session | None = getattr(request.state, "session", None)
    frame = Frame(base_of(request), made=moment(datetime.now(UTC)))
    if session is not None:
        token = (await console.sessions()).form_token(session)
        frame = Frame(frame.base, token, session.operator, frame.made)
    return HTMLResponse(render(template, frame, **content), status)


async def error_page(request: Request, status: int, message: str) -> Response:
    return await page(
        request, "error.html", status=status, heading=HTTPStatus(status).phrase.capitalize(), message=message
    )


def set_cookie(request: Request, response: Response, value: str) -> None:
    """Readable by no script, sent with no other site's requests, and over TLS only where that is spoken."""
    response.set_cookie(
        COOKIE,
        value,
        max_age=IDLE,
        path=base_of(request),
        secure=_is_https(request),
        httponly=True,
        samesite="strict",
    )


def drop_cookie(request: Request, response: Response) -> None:
    response.delete_cookie(
        COOKIE, path=base_of(request), secure=_is_https(request), httponly=True, samesite="strict"
    )


def see_other(request: Request, path: str) -> Response:
    """To another page of the console after a form, so that a reload does not send it again."""
    return RedirectResponse(f"{base_of(request)}{path}", HTTPStatus.SEE_OTHER)


def _is_https(request: Request) -> bool:
    # Whoever makes this header up harms only the cookie of its own.
    said = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    return "https" in (request.url.scheme, said.lower())


def _refuse(request: Request, error: AuthError) -> Response:
    base = base_of(request)
    if request.method == "GET" and REFRESH not in request.headers:
        wanted = base + str(request.scope["path"]).partition(PATH)[2]
        return RedirectResponse(f"{base}/login?next={quote(wanted)}", HTTPStatus.SEE_OTHER)
    frame = Frame(base)
    heading = "The session has ended"
    return HTMLResponse(render("error.html", frame, heading=heading, message=error.message), 401)


async def _read_form(request: Request) -> Form:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InputError("The form has to be sent as application/x-www-form-urlencoded.")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_FORM:
            raise TooLarge(f"The form has more than {_LARGEST_FORM:,} bytes.")
    try:
        return parse_qs(
            body.decode("utf-8", "replace"),
            keep_blank_values=True,
            errors="replace",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError as error:
        raise InputError(f"The form has more than {_MOST_FIELDS} fields.") from error
