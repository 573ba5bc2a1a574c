"""Infinity (``infinity-emb``), the embedding server that the HTTP part compares with.

It needs older libraries than Rowbeam does, so it lives in a venv of its own and is talked to over HTTP only.
"""

from __future__ import annotations

import os
import subprocess
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import psutil

from ray_app.errors import ConfigError
from ray_app.stack.ports import free_port
from ray_app.stack.processes import descendants, kill, living, terminate

NAME: Final = "infinity-emb 0.0.77"
INSTALL: Final = "python -m jobs.benchmark.peers"
#: The same torch as Rowbeam's, and the newest of everything else with which 0.0.77 starts: its typer breaks
#: with click 8.2, and it was written for transformers 4.
PINS: Final = (
    "torch==2.13.0",
    "infinity-emb[torch,server]==0.0.77",
    "transformers==4.57.6",
    "sentence-transformers==3.4.1",
    "tokenizers==0.22.2",
    "huggingface-hub==0.36.2",
    "numpy==1.26.4",
    "click==8.1.8",
    "typer==0.12.5",
    "fastapi==0.165.0",
    "starlette==1.10.0",
    "uvicorn[standard]==0.32.1",
    "orjson==3.13.0",
    "prometheus-fastapi-instrumentator==8.1.0",
)
#: The options with which it was fastest on two cores. Requests/s of 32 single texts, texts/s of 4 times 100:
#: batches of 8 58 and 127, of 32 (its default) 29 and 119, of 64 28 and 68. BetterTransformer, its default,
#: needs transformers before 4.49, and there made 49 and 126 of batches of 32.
BEST_OPTIONS: Final = ("--no-bettertransformer", "--batch-size", "8")
#: Written when everything is installed; what it holds tells a venv of other pins.
_MARK: Final = "pins.txt"
#: It reports its use to a service outside, and looks on the hub for models, unless it is told not to.
_QUIET: Final = {
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
#: Seconds to import torch, load the model and warm it up.
_START_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.2


@dataclass(frozen=True)
class InfinityServer:
    """A running server."""

    url: str
    #: Its name for the model.
    model: str
    pid: int

    def processes(self) -> list[psutil.Process]:
        return list(descendants(living(self.pid)))


def default_folder(home: Path) -> Path:
    """Where the venv goes unless somebody says otherwise."""
    return home / "peers" / "infinity"


def is_installed(folder: Path) -> bool:
    """Whether ``install`` has finished there, with these pins."""
    mark = folder / _MARK
    return mark.exists() and mark.read_text(encoding="utf-8") == _pins()


def install(folder: Path) -> None:
    """Make the venv anew and install ``PINS`` from the package index that pip is set up for.

    Raises:
        ConfigError: pip cannot; its own words are on standard error.
    """
    if is_installed(folder):
        return
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    # torch by itself first, so that its one big download is not repeated when a later requirement fails.
    for wanted in (PINS[:1], PINS):
        if subprocess.run([*pip, *wanted], check=False).returncode != 0:
            raise ConfigError(f"pip cannot install {' '.join(wanted)} in {folder}.")
    (folder / _MARK).write_text(_pins(), encoding="utf-8")


@contextmanager
def running(
    folder: Path, model_folder: Path, log: Path, options: Sequence[str] = BEST_OPTIONS
) -> Iterator[InfinityServer]:
    """The server, warmed up, on a free port of 127.0.0.1; ended at the end. Its output goes to ``log``.

    Raises:
        ConfigError: it does not start.
    """
    port = free_port()
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command(folder, model_folder, port, options),
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        server = InfinityServer(f"http://127.0.0.1:{port}", model_folder.name, process.pid)
        try:
            _wait_until_ready(server, process, log)
            yield server
        finally:
            kill(terminate(server.processes(), _STOP_SECONDS), _STOP_SECONDS)


def command(folder: Path, model_folder: Path, port: int, options: Sequence[str]) -> list[str]:
    """The command line of a server on the CPU; ``options`` come last and win."""
    return [
        str(folder / "bin" / "infinity_emb"),
        "v2",
        *("--engine", "torch", "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)),
        *("--model-id", str(model_folder), "--served-model-name", model_folder.name),
        *("--log-level", "warning"),
        *options,
    ]


def environment(folder: Path) -> dict[str, str]:
    """All that the server gets to see: none of our secrets, and a home of its own for its caches."""
    return {"PATH": f"{folder / 'bin'}{os.pathsep}{os.defpath}", "HOME": str(folder), **_QUIET}


def _pins() -> str:
    return "".join(f"{pin}\n" for pin in PINS)


def _wait_until_ready(server: InfinityServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{server.url}/health", trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(_POLL_SECONDS)
    end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise ConfigError(f"{NAME} does not start. The end of its output:\n{end}")
