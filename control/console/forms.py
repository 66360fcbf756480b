"""Turns the fields of a form into the bodies of the management API, so that the same contracts judge both."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel

from control.api import common
from control.core.refusals import InvalidError
from schemas.api import RotateApiKey
from schemas.billing import RotateSecret
from schemas.limits import LimitType, RateLimitUnit, UsageLimitUnit

Fields = Mapping[str, str]
Body = TypeVar("Body", bound=BaseModel)

_IN_FLIGHT = f"rate_limits:{LimitType.REQUEST}:{RateLimitUnit.CONCURRENT}"

_COUNTED = {LimitType.COST: "cost in minor units, as cents,"}


def _words(name: StrEnum) -> str:
    return name.value.lower().replace("_", " ")


KINDS = {
    f"{part}:{type_.value}:{unit.value}": f"{_COUNTED.get(type_, f'{_words(type_)}s')} per {_words(unit)}"
    for part, units in (("rate_limits", RateLimitUnit), ("usage_limits", UsageLimitUnit))
    for type_ in LimitType
    for unit in units
    if unit is not RateLimitUnit.CONCURRENT and not (part == "rate_limits" and type_ is LimitType.COST)
} | {_IN_FLIGHT: "requests in flight"}
"""Every kind of limit as a form names it, and as a person reads it."""


def body(contract: type[Body], values: Any) -> Body:
    """Return the body of a call. Raise InvalidError, which names the field and what is allowed."""
    return common.read(contract, json.dumps(values).encode())


def given(fields: Fields, *names: str) -> dict[str, str]:
    """Return those of the fields that were filled in."""
    return {name: fields[name].strip() for name in names if fields.get(name, "").strip()}


def target(fields: Fields) -> dict[str, Any]:
    """Return the target that an endpoint's form describes."""
    names = ("provider", "base_url", "target_model", "model_id", "environment_name", "secret_id")
    vertex = given(fields, "project_id", "location")
    return given(fields, *names) | ({"vertex_config": vertex} if vertex else {})


def models(fields: Fields) -> list[dict[str, Any]]:
    """Return the models of a group's form.

    `slug.M` names one, `remove.M` takes it out; `kind.M.L` and `threshold.M.L` are its limits, an empty threshold
    takes one out. Raise InvalidError where a threshold is no whole number.
    """
    found = []
    for name, slug in fields.items():
        at = name.removeprefix("slug.")
        if at == name or not slug or fields.get(f"remove.{at}"):
            continue
        found.append({"slug": slug, **_limits(fields, at)})
    return found


def overlap(fields: Fields, contract: type[RotateApiKey] | type[RotateSecret]) -> timedelta:
    """Return how long both work on after a rotation, which a form asks for in hours. Raise InvalidError."""
    hours = fields.get("overlap_hours", "")
    seconds = int(hours) * 3600 if hours.isascii() and hours.isdigit() and len(hours) < 5 else -1
    return timedelta(seconds=body(contract, {"overlap_seconds": seconds}).overlap_seconds)


def moment(fields: Fields, name: str) -> datetime | None:
    """Return a time of a form, which is UTC; None where it was left empty. Raise InvalidError."""
    text = fields.get(name, "").strip()
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        raise InvalidError(f"{name}: must be a time in UTC, as 2026-01-31T12:00", param=name) from None


def _limits(fields: Fields, at: str) -> dict[str, list[dict[str, Any]]]:
    limits: dict[str, list[dict[str, Any]]] = {"rate_limits": [], "usage_limits": []}
    for name, kind in fields.items():
        threshold = fields.get(name.replace("kind.", "threshold.", 1), "").strip()
        if not name.startswith(f"kind.{at}.") or not threshold:
            continue
        if kind not in KINDS:
            raise InvalidError("kind: must be one of the list", param=name)
        part, type_, unit = kind.split(":")
        limits[part].append({"type": type_, "unit": unit, "threshold": _whole(threshold, KINDS[kind])})
    return limits


def _whole(text: str, what: str) -> int:
    plain = text.replace(",", "").replace("_", "").replace(" ", "")
    if not (plain.isascii() and plain.isdigit() and len(plain) < 20):
        raise InvalidError(f"{what}: must be a whole number, 0 or more, not '{text[:40]}'", param="threshold")
    return int(plain)
