"""The token that guards this home's Ray clusters, and the variables by which Ray finds it.

Ray's local ports listen on every interface, and whoever reaches one without a token runs code.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from ray_app.errors import RayUnavailable
from ray_app.settings import Settings
from ray_app.stack.files import exclusive, os_errors_as, private_folder, write_private

_LOCK_SECONDS: Final = 10.0


def token_path(settings: Settings) -> Path:
    """Where the token is kept, mode 0600 in a folder of mode 0700."""
    return settings.home.absolute() / "secrets" / "ray-token"


def ensure_token(settings: Settings) -> Path:
    """Make the token, 256 random bits, when there is none. Returns its path; makers at once agree.

    Raises:
        RayUnavailable: it cannot be written.
    """
    path = token_path(settings)
    with os_errors_as(RayUnavailable, "Writing Ray's token"):
        settings.home.mkdir(parents=True, exist_ok=True)
        private_folder(path.parent)
        with exclusive(path.with_name("lock"), wait=_LOCK_SECONDS):
            if not path.exists() or path.stat().st_size == 0:
                write_private(path, secrets.token_hex(32))
    return path


def ray_variables(settings: Settings) -> dict[str, str]:
    """What any Ray process of this home needs in its environment before it imports Ray.

    An empty ``RAY_AUTH_TOKEN`` counts as none; it is there because a full one would come first.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "",
        "RAY_AUTH_TOKEN_PATH": str(ensure_token(settings)),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Named for other systems; on every one it keeps 127.0.0.1 from being replaced by the machine's outer
        # address, and a node that is called so listens on loopback alone. A cluster of one machine.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Under "uv run" Ray would otherwise build an environment for every worker.
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        # Ray's default of 15 leaves an encoder a thirtieth of a core beside any other busy process.
        "RAY_worker_niceness": "0",
    }
