"""Converted models on disk, each made once for a machine, and what was measured of them."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from ray_app.encoders.choice import EncoderChoice, Precision
from ray_app.encoders.model_files import ModelFiles
from ray_app.encoders.openvino_encoder import Padding
from ray_app.stack.files import exclusive

logger: Final = logging.getLogger(__name__)

MODEL_FILE: Final = "model.xml"
_ENTRY_FILE: Final = "choice.json"
#: Raise it when what ``convert`` does changes.
_RECIPE: Final = 1
_LIBRARIES: Final = ("nncf", "openvino", "sentence-transformers", "tokenizers", "torch", "transformers")
#: Seconds a conversion may take; that of the bundled model takes 20 on two cores.
_CONVERT_SECONDS: Final = 900.0
_CPU_INFO: Final = Path("/proc/cpuinfo")


class Entry(BaseModel):
    """One converted model: the choice, how its tokenizer pads, and the SHA-256 of its files by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choice: EncoderChoice
    padding: Padding
    digests: Mapping[str, str]

    def write(self, folder: Path) -> None:
        (folder / _ENTRY_FILE).write_text(self.model_dump_json(indent=1), encoding="utf-8")


class ModelCache:
    """The entry of one model at one precision, in ``folder``.

    The folder's name digests all that decides what comes out of a conversion: the model's weights
    and configuration, the libraries' versions, the precision and the processor, as another one may
    have no 8-bit instructions, or round in other places.
    """

    def __init__(self, cache: Path, files: ModelFiles, precision: Precision) -> None:
        """``cache`` is ``Settings.cache``. Raises ConfigError when the model's files cannot be read."""
        self._files = files
        self._precision = precision
        decides = {
            "recipe": _RECIPE,
            "weights": files.revision(cache / "digests"),
            "config": digests_of(files.folder, "**/*.json"),
            "libraries": {name: version(name) for name in _LIBRARIES},
            "precision": precision,
            "processor": processor(),
        }
        key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
        self.folder: Final = cache / "encoders" / f"{precision}-{key}"
        #: What the last conversion printed.
        self.log: Final = self.folder.with_suffix(".log")

    def get(self, threads: int | None = None) -> Entry | None:
        """The entry, made when there is none, which takes a while; others that ask meanwhile wait for it.

        None, and a warning, when it cannot be made: the disk is full, the conversion was killed.
        """
        entry = read_entry(self.folder)
        if entry is not None:
            return entry
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with exclusive(self.folder.with_suffix(".lock"), wait=_CONVERT_SECONDS):
                return read_entry(self.folder) or self._make(threads)
        except (OSError, subprocess.SubprocessError) as error:
            logger.warning(
                "%s could not be converted for OpenVINO (%s; see %s), so torch encodes.",
                self._files.name,
                type(error).__name__,
                self.log,
            )
            return None

    def _make(self, threads: int | None) -> Entry:
        """Convert in a process of its own and rename the result into place. Raises as ``_run``, OSError."""
        name = self._files.name
        logger.info("Converting %s for this processor; this is done once.", name)
        prefix = f".{self.folder.name}-"
        for left in self.folder.parent.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)  # by a process that was killed
        draft = Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder.parent))
        try:
            self._run(threads, draft)
            # What is there is damaged, or it would have been used.
            shutil.rmtree(self.folder, ignore_errors=True)
            draft.rename(self.folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        entry = read_entry(self.folder)
        if entry is None:
            raise OSError(errno.EIO, "the converted model was not kept", str(self.folder))
        for refusal in entry.choice.refusals:
            logger.warning("%s encodes %s, not %s.", entry.choice.backend, name, refusal)
        return entry

    def _run(self, threads: int | None, out: Path) -> None:
        """Raises OSError; subprocess.SubprocessError when the process fails or takes too long."""
        command = [sys.executable, "-m", "ray_app.encoders.convert", "--name", self._files.name]
        command += ["--folder", str(self._files.folder), "--precision", self._precision, "--out", str(out)]
        command += ["--sha256", self._files.sha256] if self._files.sha256 else []
        command += ["--threads", str(threads)] if threads else []
        # It ends when its standard input does, and that is when this process ends.
        with (
            self.log.open("wb") as log,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log) as process,
        ):
            try:
                code = process.wait(_CONVERT_SECONDS)
            finally:
                process.kill()
        if code:
            raise subprocess.CalledProcessError(code, command[:3])


def read_entry(folder: Path, *, verify: bool = True) -> Entry | None:
    """The entry in ``folder``; None where there is none, or a part of it is missing or damaged.

    Without ``verify`` the model's files are not compared with their digests.
    """
    try:
        entry = Entry.model_validate_json((folder / _ENTRY_FILE).read_text(encoding="utf-8"))
        if verify and digests_of(folder) != entry.digests:
            return None
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
    return entry


def digests_of(folder: Path, pattern: str = "model.*") -> dict[str, str]:
    """SHA-256 of the files below ``folder`` by relative path. Raises OSError."""
    digests = {}
    for file in sorted(folder.glob(pattern)):
        if file.is_file():
            with file.open("rb") as stream:
                digests[str(file.relative_to(folder))] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def processor() -> str:
    """The processor's name and its instruction set extensions."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    # Lines of the first core: "model name : …", "flags : …", on ARM "Features : …".
    first = lines[: lines.index("")] if "" in lines else lines
    wanted = ("model name", "flags", "CPU part", "Features")
    return platform.machine() + "".join(line for line in first if line.startswith(wanted))
