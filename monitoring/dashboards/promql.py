"""The few shapes that most queries have."""

from __future__ import annotations


def per_second(counter: str, by: str = "", where: str = "") -> str:
    """How fast a counter grows, added up over processes."""
    return f"sum{_by(by)} (rate({counter}{_where(where)}[$__rate_interval]))"


def per_range(counter: str, by: str = "", where: str = "") -> str:
    """By how much a counter grew in the time shown."""
    return f"sum{_by(by)} (increase({counter}{_where(where)}[$__range]))"


def quantile(share: float, histogram: str, by: str = "", where: str = "") -> str:
    """The value that a share of observations does not exceed, to the bucket."""
    labels = f"le, {by}" if by else "le"
    rates = f"sum by ({labels}) (rate({histogram}_bucket{_where(where)}[$__rate_interval]))"
    return f"histogram_quantile({share}, {rates})"


def share(part: str, whole: str) -> str:
    """A part of a whole, 0 where the part has no series yet; nothing where the whole is 0."""
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def _where(condition: str) -> str:
    return f"{{{condition}}}" if condition else ""
