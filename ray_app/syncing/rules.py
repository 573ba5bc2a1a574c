"""What a deployment may set about syncs: ``[sync]`` in ``rowbeam.toml``."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ray_app.errors import ConfigError


class SyncRules(BaseModel):
    """Settings of syncs; times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: How far behind the database's clock an application's may be when it sets ``updated_at``. Rows of this
    #: time are read by every sync anew. One second is needed in any case: see ``db.activity``.
    overlap_seconds: float = Field(default=600.0, ge=1.0)
    #: A sync compares the whole table when that was last done longer ago than this.
    full_every_seconds: float = Field(default=86_400.0, gt=0)

    @property
    def overlap(self) -> timedelta:
        return timedelta(seconds=self.overlap_seconds)

    @property
    def full_every(self) -> timedelta:
        return timedelta(seconds=self.full_every_seconds)

    @classmethod
    def load(cls, path: Path | None) -> SyncRules:
        """The rules in the config file, which the table catalogue has found readable.

        Raises:
            ConfigError: a rule is unknown or out of range.
        """
        if path is None:
            return cls()
        given = tomllib.loads(path.read_text(encoding="utf-8")).get("sync", {})
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()
            )
            raise ConfigError(f"[sync] in {path} holds something unknown: {problems}.") from error
