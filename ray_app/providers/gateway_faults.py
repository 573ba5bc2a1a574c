"""What a failed answer means: wait, look for the text at fault, send less, or call the operator."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ray_app.providers.gateway_wire import ErrorBody


class Verdict(Enum):
    """What to do about a failed request."""

    #: Ask again later: the endpoint is down or throttles.
    WAIT = "wait"
    #: Ask again a few times, then look for a text that makes the endpoint fail.
    SUSPECT = "suspect"
    #: Look for the text at fault at once.
    REFUSED = "refused"
    #: The request holds too much; ``Fault.max_inputs`` or ``Fault.too_many_tokens`` says of what.
    TOO_LARGE = "too large"
    #: Nothing helps until somebody changes something.
    DENIED = "denied"


@dataclass(frozen=True)
class Fault:
    """A request that failed. ``reason`` is fit for people: it holds no text, no key and no address."""

    verdict: Verdict
    reason: str
    #: None when no answer came.
    status: int | None = None
    #: What to do about a ``DENIED``.
    hint: str | None = None
    #: Seconds the endpoint asks to wait, uncapped.
    asked: float | None = None
    #: Inputs the endpoint takes at once, as far as it said.
    max_inputs: int | None = None
    #: The request holds too many tokens or bytes.
    too_many_tokens: bool = False


#: Codes of "no credit": the status is 429, but no wait helps (OpenAI, LiteLLM).
_NO_QUOTA: Final = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "budget_exceeded",
}
_QUOTA_HINT: Final = "Raise the quota or the budget of the key."
_REDIRECT_HINT: Final = "The endpoint redirects: set ROWBEAM_GATEWAY_URL to where it leads."
_HINTS: Final = {
    401: "Check ROWBEAM_GATEWAY_API_KEY.",
    402: _QUOTA_HINT,
    403: "The key may not use this model, or this address may not use the endpoint.",
    404: "Check ROWBEAM_GATEWAY_URL and ROWBEAM_GATEWAY_MODEL; on Azure the deployment and api-version.",
    407: "The proxy between here and the endpoint wants credentials.",
}
#: Statuses below 500 that pass by themselves; of those from 500 on, all do.
_PASSING: Final = {408, 409, 425, 429}
#: Ollama (500) and TEI (424) answer so to a text their model fails on, but also when all is broken.
_SUSPECT: Final = {424, 500}
_REFUSED: Final = {400, 413, 422}
#: "Too many inputs. The max number of inputs is 16." (Azure), "batch size 33 > maximum allowed batch
#: size 32" (TEI), "batch size is invalid, it should not be larger than 10" (DashScope), "at most 100
#: requests can be in one batch" (Gemini), "array too long. Expected an array with maximum length
#: 2048" (OpenAI), "List should have at most 32 items" (servers on FastAPI).
_TOO_MANY_INPUTS: Final = re.compile(
    r"too many inputs|number of inputs|batch size|in one batch|array too long|array_above_max_length"
    r"|list should have at most"
)
#: "Requested 453357 tokens, max 300000 tokens per request" (OpenAI), "tokens per submitted batch" (Voyage).
_TOO_MANY_TOKENS: Final = re.compile(r"max_tokens_per_request|tokens per (?:request|submitted batch)")


def judge(status: int, error: ErrorBody, inputs: int, asked: float | None = None) -> Fault:
    """The fault behind an answer other than 2xx to a request of ``inputs`` texts."""
    reason = f"HTTP {status}" + (f", {error.label}" if error.label else "")
    if {error.code, error.type} & _NO_QUOTA:
        return Fault(Verdict.DENIED, reason, status, hint=_QUOTA_HINT)
    if status in _SUSPECT:
        return Fault(Verdict.SUSPECT, reason, status, asked=asked)
    if status in _PASSING or status >= 500:
        return Fault(Verdict.WAIT, reason, status, asked=asked)
    if status in _REFUSED:
        return _refusal(status, reason, error, inputs)
    hint = _REDIRECT_HINT if status < 400 else _HINTS.get(status, "Check ROWBEAM_GATEWAY_URL.")
    return Fault(Verdict.DENIED, reason, status, hint=hint)


def _refusal(status: int, reason: str, error: ErrorBody, inputs: int) -> Fault:
    said = f"{error.code} {error.type} {error.message}".lower()
    if inputs > 1 and _TOO_MANY_INPUTS.search(said):
        return Fault(Verdict.TOO_LARGE, reason, status, max_inputs=stated_limit(said, inputs))
    if inputs > 1 and _TOO_MANY_TOKENS.search(said):
        return Fault(Verdict.TOO_LARGE, reason, status, too_many_tokens=True)
    # 413 mostly speaks of the body; whether a text or their sum is at fault, only smaller requests tell.
    return Fault(Verdict.REFUSED, reason, status, too_many_tokens=status == 413)


def stated_limit(message: str, inputs: int) -> int:
    """The limit on inputs that a message states, given that ``inputs`` were too many; else half of them.

    The largest number below ``inputs`` is taken. Should it be another number, such as a status,
    the next refusal corrects it, for each takes a smaller one.
    """
    stated = [number for number in map(int, re.findall(r"\d{1,9}", message)) if 1 <= number < inputs]
    return max(stated, default=max(1, inputs // 2))
