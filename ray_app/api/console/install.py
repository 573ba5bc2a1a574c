"""Adding the console to the API's application."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Final

from fastapi import FastAPI

from ray_app.api.console import actions, login, pages
from ray_app.api.console.state import Console
from ray_app.api.services import Services

#: The last one answers every address below the console's that no other does.
MODULES: Final[Sequence[ModuleType]] = (login, actions, pages)


def add_console(app: FastAPI, services: Services) -> None:
    """The pages under ``/console``. They are in no OpenAPI document: they are for people."""
    app.state.console = Console.of(services)
    for module in MODULES:
        app.include_router(module.router)
