"""Which backend encodes on a CPU, and the measurements that decided it. Pure; read by ``rowbeam doctor``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from ray_app.encoders.openvino_runtime import OpenVinoBackend

Precision = Literal["fast", "exact"]
Backend = Literal["torch", OpenVinoBackend]

#: What ``precision`` lets be tried beside torch; the more precise one last.
CANDIDATES: Final[Mapping[Precision, tuple[OpenVinoBackend, ...]]] = {
    "fast": ("openvino-int8", "openvino-f32"),
    "exact": ("openvino-f32",),
}


@dataclass(frozen=True)
class Tolerance:
    """How near to torch in 32 bits a candidate must be over the check texts."""

    #: Share of the ten nearest neighbours that both name.
    agreement: float
    mean_cosine: float = 0.995

    def refusal(self, agreement: float, mean_cosine: float) -> str | None:
        """Why a candidate with these figures is refused, or None when it is not."""
        # Written so that a NaN is refused too.
        if not mean_cosine >= self.mean_cosine:
            return f"mean cosine to torch {mean_cosine:.4f}, below {self.mean_cosine}"
        if not agreement >= self.agreement:
            return f"top-10 agreement with torch {agreement:.4f}, below {self.agreement}"
        return None


#: Real texts are to agree to 0.95, and the check texts are a hundredth easier.
TOLERANCES: Final[Mapping[Precision, Tolerance]] = {
    "fast": Tolerance(agreement=0.96),
    "exact": Tolerance(agreement=0.999),
}


class Trial(BaseModel):
    """What was measured of one backend over the check texts; None where it could not run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Backend
    texts_per_second: float | None = None
    #: Share of the ten nearest neighbours that torch names too.
    agreement: float | None = None
    mean_cosine: float | None = None
    #: Why it may not be used, whatever its speed.
    refused: str | None = None


class EncoderChoice(BaseModel):
    """The backend that encodes, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Backend
    why: str
    trials: tuple[Trial, ...] = Field(default=())

    @property
    def refusals(self) -> list[str]:
        """One phrase for each backend that was refused: which, and why."""
        return [f"{trial.backend} ({trial.refused})" for trial in self.trials if trial.refused]


def choose(trials: Sequence[Trial]) -> EncoderChoice:
    """The fastest of the backends that were not refused; torch's trial is among them and never is."""
    allowed = sorted(
        (trial for trial in trials if trial.refused is None),
        key=lambda trial: trial.texts_per_second or 0.0,
        reverse=True,
    )
    why = ", ".join(_figures(trial) for trial in allowed)
    return EncoderChoice(backend=allowed[0].backend, why=why, trials=tuple(trials))


def _figures(trial: Trial) -> str:
    agreed = "" if trial.agreement is None else f" (top-10 agreement {trial.agreement:.3f})"
    return f"{trial.backend} {trial.texts_per_second or 0.0:.0f} texts/s{agreed}"
