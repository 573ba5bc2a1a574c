"""A connection that costs next to nothing, so that a crowd of them is not what is measured."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

_HEAD_END: Final = b"\r\n\r\n"


@dataclass(frozen=True)
class WireAnswer:
    """``headers`` by name in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""


class Wire:
    """HTTP/1.1 to one server, one request at a time; connects when it has to.

    ``key`` is sent as a bearer token; None sends none.
    """

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._authorization = "" if key is None else f"authorization: Bearer {key}\r\n"
        self._connection: _Connection | None = None

    def request(self, path: str, body: Any) -> bytes:
        """A POST of ``body`` as JSON, for ``send``: made once, it can be sent often."""
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n{self._authorization}"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    async def post(self, path: str, body: Any) -> WireAnswer:
        """``send`` a request for ``body`` as JSON."""
        return await self.send(self.request(path, body))

    async def send(self, request: bytes) -> WireAnswer:
        """Raises OSError or EOFError when the server hangs up before it has answered."""
        if self._connection is None:
            loop = asyncio.get_running_loop()
            _, self._connection = await loop.create_connection(_Connection, self._host, self._port)
        try:
            answer = await self._connection.ask(request)
        except BaseException:
            self.close()
            raise
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Connection(asyncio.Protocol):
    """Takes an answer's bytes as they come; asyncio's streams would copy and wake up more often."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[WireAnswer] | None = None
        self._received = bytearray()
        self._head: WireAnswer | None = None
        #: Bytes of the head and of the whole answer, once the head is here.
        self._content_at = self._length = 0

    def ask(self, request: bytes) -> asyncio.Future[WireAnswer]:
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            self._answer.set_exception(EOFError("The server has hung up."))
        else:
            self._transport.write(request)
        return self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_connection makes
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or EOFError("The server has hung up."))

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            if self._head is None:
                self._read_head()
        except (ValueError, KeyError) as error:
            self._fail(OSError(f"The server does not answer as HTTP/1.1 with a length ({error!r})."))
            return
        if self._head is not None and len(self._received) >= self._length:
            self._finish(self._head)

    def _read_head(self) -> None:
        end = self._received.find(_HEAD_END)
        if end < 0:
            return
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        self._content_at = end + len(_HEAD_END)
        self._length = self._content_at + int(headers["content-length"])
        self._head = WireAnswer(int(first.split()[1]), headers)

    def _finish(self, head: WireAnswer) -> None:
        content = bytes(self._received[self._content_at : self._length])
        self._received.clear()
        self._head = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(WireAnswer(head.status, head.headers, content))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
