"""A server that speaks Qdrant's REST interface and gives the answers a test scripts."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    status: int = 200
    result: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    #: None is Qdrant's envelope around ``result``.
    body: str | None = None
    #: Hang up instead of answering.
    drop: bool = False

    def text(self) -> str:
        if self.body is not None:
            return self.body
        status = "ok" if self.status == 200 else {"error": "secret row text"}
        return json.dumps({"time": 0.0, "status": status, "result": self.result})


@dataclass
class Request:
    line: str
    body: Any
    api_key: str | None


class ScriptedServer:
    """Answers like an empty Qdrant server, but for the calls that a test scripts first."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._scripts: list[tuple[re.Pattern[str], list[Answer]]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                line = f"{self.command} {self.path}"
                script.requests.append(
                    Request(line, json.loads(raw) if raw else None, self.headers.get("api-key"))
                )
                answer = script.answer(line)
                if answer.drop:
                    self.connection.close()
                    return
                data = answer.text().encode()
                self.send_response(answer.status)
                for name, value in {**answer.headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

            def log_message(self, *args: Any) -> None:
                """Quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def will(self, line: str, *answers: Answer) -> None:
        """Give ``answers`` in turn, the last for ever, to requests whose line matches."""
        self._scripts.insert(0, (re.compile(line), list(answers)))

    def answer(self, line: str) -> Answer:
        for pattern, answers in self._scripts:
            if pattern.match(line):
                return answers.pop(0) if len(answers) > 1 else answers[0]
        if line == "GET /":
            return Answer(body=json.dumps({"title": "qdrant", "version": "1.20.0"}))
        if line.endswith("/exists"):
            return Answer(result={"exists": True})
        if "/points?" in line or "/points/delete" in line or "/vectors/" in line:
            return Answer(result={"operation_id": 1, "status": "completed"})
        return Answer(result=True)

    def sent(self, line: str) -> list[Request]:
        return [request for request in self.requests if re.match(line, request.line)]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def collection_info(dimensions: int, metadata: dict[str, Any], *, words: bool = True) -> dict[str, Any]:
    """What the server says of an empty collection, with or without room for words."""
    return {
        "status": "green",
        "optimizer_status": "ok",
        "segments_count": 1,
        "config": {
            "params": {
                "vectors": {"dense": {"size": dimensions, "distance": "Cosine"}},
                "sparse_vectors": {"bm25": {"modifier": "idf"}} if words else {},
            },
            "hnsw_config": {"m": 0, "ef_construct": 100, "full_scan_threshold": 10000},
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
            "metadata": metadata,
        },
        "payload_schema": {},
    }
