"""The demo's invented companies and the phrases that all engineers share, read from data files."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any, Final

from ray_app.sample.grammar import Rule

#: File stems of the companies shipped, in the order the demo adds them.
COMPANIES: Final = ("bank", "logistics")


@dataclass(frozen=True)
class Area:
    """One project of a company: what it is for, its services, what they handle, what users want of it."""

    key: str
    name: str
    purpose: str
    services: tuple[str, ...]
    entities: tuple[str, ...]
    wishes: tuple[str, ...]


@dataclass(frozen=True)
class Company:
    """A demo tenant: its areas, and all the rules its texts are made by."""

    tenant: str
    areas: tuple[Area, ...]
    rules: Mapping[str, Rule]


def load_company(name: str) -> Company:
    """The company of ``company_<name>.toml``."""
    document = _read(f"company_{name}.toml")
    areas = tuple(_area(area) for area in document["areas"])
    return Company(document["tenant"], areas, {**_shared_rules(), **document["rules"]})


def _area(fields: dict[str, Any]) -> Area:
    values: dict[str, Any] = {name: _frozen(value) for name, value in fields.items()}
    return Area(**values)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@cache
def _shared_rules() -> Mapping[str, Rule]:
    groups = _read("phrases.toml")
    phrases: dict[str, Rule] = {name: rule for group in groups.values() for name, rule in group.items()}
    return {**phrases, **_NUMBERS}


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((files(__package__) / name).read_text(encoding="utf-8"))


def _between(low: int, high: int, form: str = "{}") -> Rule:
    def draw(random: Random) -> str:
        return form.format(random.randint(low, high))

    return draw


def _commit(random: Random) -> str:
    return f"{random.getrandbits(28):07x}"


def _version(random: Random) -> str:
    return f"{random.randint(1, 9)}.{random.randint(0, 40)}.{random.randint(0, 12)}"


_NUMBERS: Final[Mapping[str, Rule]] = {
    "few": _between(2, 9),
    "tens": _between(11, 96),
    "many": _between(120, 9800),
    "millis": _between(40, 900, "{} ms"),
    "seconds": _between(2, 55, "{} s"),
    "percent": _between(10, 68, "{} %"),
    "commit": _commit,
    "version": _version,
}
