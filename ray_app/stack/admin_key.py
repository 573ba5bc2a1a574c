"""The operator's key for the server's admin routes."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from ray_app.errors import DependencyError
from ray_app.settings import Settings
from ray_app.stack.files import exclusive, os_errors_as, private_folder, write_private

_LOCK_SECONDS: Final = 10.0
#: Unlike a tenant's key, which begins with "rb_".
_PREFIX: Final = "rbadmin"


def admin_key_path(settings: Settings) -> Path:
    """Where a generated key is kept, mode 0600 in a folder of mode 0700."""
    return settings.home.absolute() / "secrets" / "admin-key"


def ensure_admin_key(settings: Settings) -> SecretStr:
    """The key that is configured, else the one under ``home``: 256 random bits, made by whoever asks first.

    Raises:
        DependencyError: it cannot be read or written.
    """
    if settings.admin_key is not None:
        return settings.admin_key
    path = admin_key_path(settings)
    with os_errors_as(DependencyError, "Writing the admin key"):
        settings.home.mkdir(parents=True, exist_ok=True)
        private_folder(path.parent)
        with exclusive(path.with_name("lock"), wait=_LOCK_SECONDS):
            text = path.read_text(encoding="ascii").strip() if path.exists() else ""
            if not text:
                text = f"{_PREFIX}_{secrets.token_urlsafe(32)}"
                write_private(path, text)
    return SecretStr(text)
