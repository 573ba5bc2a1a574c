"""An OpenAI-compatible embeddings endpoint on 127.0.0.1 that misbehaves on request.

    with FakeGateway(api_key="secret", dimensions=8) as gateway:
        gateway.script(rate_limited(retry_after="1"), error(500))   # the next two requests
        ...                                                         # talk to gateway.url
        assert [request.status for request in gateway.requests] == [429, 500, 200]

Requests are answered from ``gateway.behaviour`` (lasting traits, changeable at any time) unless
a scripted step is due; ``fake_gateway_steps`` has the steps. Vectors come from a hash of the text,
see ``vector_of``; they are not of unit length.

Stand-alone: ``python -m tests.support.fake_gateway --port 8080``.
"""

from __future__ import annotations

import argparse
import base64
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np

from tests.support.fake_gateway_steps import (
    Altered,
    Behaviour,
    Body,
    Drop,
    Hang,
    Received,
    Reply,
    Step,
    Trickle,
    error,
    tokens_of,
    vector_of,
)


class FakeGateway:
    """The endpoint; a context manager. Safe to script from the test while requests come in.

    With ``deployment`` it is an Azure one: its URL, the ``api-version`` and the ``api-key`` header
    are checked as Azure does. ``port`` 0 takes a free one; ``url`` is the same after ``restart``.
    """

    def __init__(
        self,
        *,
        dimensions: int = 8,
        api_key: str | None = None,
        deployment: str | None = None,
        port: int = 0,
    ) -> None:
        self.dimensions = dimensions
        self.api_key = api_key
        self.deployment = deployment
        self.behaviour = Behaviour()
        self.requests: list[Received] = []
        self._steps: deque[Step] = deque()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._start(port)

    def __enter__(self) -> FakeGateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What to configure as the gateway's URL."""
        if self.deployment is not None:
            return f"{self.base_url}/openai/deployments/{self.deployment}/embeddings?api-version=2024-02-01"
        return f"{self.base_url}/v1"

    @property
    def texts(self) -> list[str]:
        """The texts of all successful requests, in order of arrival."""
        return [text for request in self.requests if request.status == 200 for text in request.texts]

    @property
    def charged(self) -> int:
        """Tokens on the bill so far: of every answer that said so, used or not."""
        return sum(request.tokens for request in self.requests)

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._connections)

    def script(self, *steps: Step) -> None:
        """Answer the next requests so, one step each."""
        with self._lock:
            self._steps.extend(steps)

    @contextmanager
    def outage(self, step: Step | None = None) -> Iterator[None]:
        """Answer every request with ``step`` (503 by default) for a while."""
        self.behaviour.outage = step or error(503)
        try:
            yield
        finally:
            self.behaviour.outage = None

    def close(self) -> None:
        """Stop listening and cut every connection; the port refuses from now on. Idempotent."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._server.shutdown()
        with self._lock:
            for connection in self._connections:
                _cut(connection)
        self._server.server_close()  # joins the handlers' threads
        self._thread.join()

    def restart(self) -> None:
        """Listen again on the same port after ``close``."""
        self._closing.clear()
        self._start(self.port)

    def _start(self, port: int) -> None:
        self._server = _Server(self, port)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-gateway"
        )
        self._thread.start()

    # What handlers use.

    def next_step(self, received: Received) -> Step | None:
        with self._lock:
            self.requests.append(received)
            return self._steps.popleft() if self._steps else self.behaviour.outage

    def connected(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)
            if self._closing.is_set():
                _cut(connection)

    def disconnected(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)

    def sleep(self, seconds: float) -> None:
        self._closing.wait(seconds)

    def answer(self, received: Received) -> Reply | Body:
        """What a healthy endpoint of this behaviour says."""
        return self._refusal(received) or self._embeddings(received)

    def _refusal(self, received: Received) -> Reply | None:
        return self._misdirected(received) or self._unacceptable(received.body, received.texts)

    def _misdirected(self, received: Received) -> Reply | None:
        if self.deployment is not None:
            paths = {f"/openai/deployments/{self.deployment}/embeddings"}
            signed = received.headers.get("api-key") == self.api_key
        else:
            paths = {"/v1/embeddings", "/embeddings"}
            signed = received.headers.get("authorization") == f"Bearer {self.api_key}"
        if received.path not in paths:
            return error(404, "DeploymentNotFound" if self.deployment else None)
        if self.api_key is not None and not signed:
            return error(401, "invalid_api_key", f"Incorrect API key provided: {self.api_key}.")
        if self.deployment is not None and "api-version" not in received.query:
            return error(404, "ResourceNotFound")
        return None

    def _unacceptable(self, body: Body, texts: list[str]) -> Reply | None:
        traits = self.behaviour
        if not texts or not all(isinstance(text, str) and text for text in texts):
            return error(400, "invalid_request_error", "'$.input' is invalid.")
        if refused := traits.refuses & body.keys():
            return error(400, "UnsupportedParamsError", f"not supported: {refused}")
        for text in texts:
            if any(word in text for word in traits.poison):
                return error(traits.poison_status, "invalid_request_error", f"cannot embed {text!r}")
        return self._too_large(body, texts)

    def _too_large(self, body: Body, texts: list[str]) -> Reply | None:
        traits = self.behaviour
        if len(json.dumps(body)) > traits.max_body:
            return Reply(413, b"<html>413 Request Entity Too Large</html>")
        if len(texts) > traits.max_inputs:
            status, message = traits.too_many
            return error(status, message=message.format(limit=traits.max_inputs, count=len(texts)))
        tokens, limit = sum(map(tokens_of, texts)), traits.max_request_tokens
        if tokens > limit:
            message = f"Requested {tokens} tokens, max {limit} tokens per request"
            return error(400, "max_tokens_per_request", message)
        return None

    def _embeddings(self, received: Received) -> Body:
        traits, body = self.behaviour, received.body
        as_base64 = body.get("encoding_format") == "base64" and not traits.floats_only
        data = []
        for index, text in enumerate(received.texts):
            vector = vector_of(text, body.get("dimensions", self.dimensions))
            if any(word in text for word in traits.nan):
                vector = np.full_like(vector, np.nan)
            value = (
                base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_base64 else vector.tolist()
            )
            data.append(
                {"object": "embedding", "embedding": value} | ({"index": index} if traits.indexed else {})
            )
        answer: Body = {"object": "list", "data": data, "model": traits.model or body.get("model")}
        if traits.counts_usage:
            tokens = sum(map(tokens_of, received.texts))
            answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        return answer


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):  # the client was faster
        connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    allow_reuse_address = True
    #: Callers that connect at once, before the thread that accepts them has its turn; 5 by default.
    request_queue_size = 512

    def __init__(self, gateway: FakeGateway, port: int) -> None:
        self.gateway = gateway
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # Head and body go in two writes; Nagle's algorithm would hold the second back for 40 ms.
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.gateway.connected(self.connection)

    def finish(self) -> None:
        self.server.gateway.disconnected(self.connection)
        super().finish()

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            # A client that gave up waiting.
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        """The list of models, which says whether the key is right and costs nothing."""
        signed = self.headers["authorization"] == f"Bearer {self.server.gateway.api_key}"
        body = json.dumps({"object": "list", "data": []}).encode()
        reply = Reply(200, body) if signed else error(401, "invalid_api_key")
        self._send(Received(self.path, {}, {}, {}), reply)

    def do_POST(self) -> None:
        gateway = self.server.gateway
        parts = urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        received = Received(parts.path, parse_qs(parts.query), headers, body)
        step = gateway.next_step(received)
        gateway.sleep(gateway.behaviour.latency)
        match step:
            case Hang(seconds):
                gateway.sleep(seconds)
                self.close_connection = True
            case Drop(midway):
                if midway:
                    self._send(received, Reply(200, b'{"object":', {"content-length": "1000"}))
                self.close_connection = True
            case Reply():
                self._send(received, step)
            case Trickle(seconds):
                self._answer(received, None, pause=seconds)
            case _:
                self._answer(received, step)

    def _answer(self, received: Received, step: Altered | None, pause: float = 0.0) -> None:
        answer = self.server.gateway.answer(received)
        if isinstance(answer, dict):
            received.tokens = answer.get("usage", {}).get("total_tokens", 0)
            body = answer if step is None else step.change(answer)
            answer = Reply(200, json.dumps(body).encode())
        self._send(received, answer, pause)

    def _send(self, received: Received, reply: Reply, pause: float = 0.0) -> None:
        received.status = reply.status
        self.send_response(reply.status)
        defaults = {"content-type": "application/json", "content-length": str(len(reply.body))}
        for name, value in (defaults | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        for piece in [bytes([byte]) for byte in reply.body] if pause else [reply.body]:
            self.wfile.write(piece)
            self.server.gateway.sleep(pause)


def main() -> None:
    parser = argparse.ArgumentParser(description="A fake embeddings endpoint on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dimensions", type=int, default=1536)
    parser.add_argument("--api-key")
    parser.add_argument("--deployment", help="Be an Azure deployment of this name.")
    parser.add_argument("--max-inputs", type=int, default=2048)
    parser.add_argument("--latency", type=float, default=0.0, help="Seconds an answer takes.")
    options = parser.parse_args()
    with FakeGateway(
        dimensions=options.dimensions,
        api_key=options.api_key,
        deployment=options.deployment,
        port=options.port,
    ) as gateway:
        gateway.behaviour.max_inputs = options.max_inputs
        gateway.behaviour.latency = options.latency
        print(gateway.url, flush=True)  # noqa: T201
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
