"""How the demo tells what it does."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from ray_app.cli.output import note, show


class Story:
    """Where the demo tells what it does: as text while it happens, or as one document at the end."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.document: dict[str, Any] = {}
        self._steps = 0

    def step(self, title: str) -> None:
        self._steps += 1
        self.say(f"\n{self._steps}. {title}")

    def say(self, text: str) -> None:
        note(text, as_json=self.as_json)

    def table(self, renderable: RenderableType) -> None:
        if not self.as_json:
            show(renderable)
