"""What a measurement was taken on, so that a record can be read a year later."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import psutil

from ray_app.cores import usable_cores
from ray_app.encoders.device import likely_device

#: Instruction sets that decide how fast a model runs on a CPU.
_FLAGS: Final = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_PACKAGES: Final = (
    *("rowbeam", "torch", "sentence-transformers", "transformers", "tokenizers", "openvino", "nncf"),
    *("ray", "qdrant-client", "qdrant-edge-py", "psycopg", "numpy"),
)


def machine_facts() -> dict[str, Any]:
    """CPU, cores this process may use, memory and the versions of what does the work."""
    model, flags = _cpu()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": model,
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def machine_name() -> str:
    """What decides how fast a provider is here, in a line."""
    return f"{_cpu()[0]}, {usable_cores()} cores, {likely_device()}"


def _cpu() -> tuple[str, frozenset[str]]:
    """Model and flags as Linux lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not on macOS
        return platform.processor(), frozenset()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return fields.get("model name", platform.processor()), frozenset(fields.get("flags", "").split())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
