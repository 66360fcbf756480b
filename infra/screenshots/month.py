"""A lab with a month of use: made through the management API, its past days by what metering counts with."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from domain.sources import EventBatch
from metering.store import transaction
from runtime import clock, ids
from runtime.database import engines
from schemas.usage import Outcome, Producer, Tokens, UsageEvent, UsageSource
from tollgate import installation

DAYS = 37
"""How far back it goes: past the last 30 days and the whole last week before them."""
CALLS_OF_A_DAY = 900
_AT_ONCE = 2000
_SPOOL = "seeded"
SMALL, LARGE, EMBED = "meridian/swift-7b", "meridian/atlas-70b", "meridian/embed-v2"
_TOKENS = {SMALL: (620, 240), LARGE: (1900, 520), EMBED: (3100, 0)}
_LATENCIES_MS = {SMALL: 640, LARGE: 2400, EMBED: 90}
_RATES = {SMALL: ("0.15", "0.075", "0.60"), LARGE: ("1.10", "0.55", "4.40"), EMBED: ("0.02", "0.02", "0")}
_CUSTOMERS = (
    ("aurora-search", "Aurora Search", None, 20),
    ("aurora-search/eu", "Aurora, Europe", "aurora-search", 11),
    ("aurora-search/us", "Aurora, America", "aurora-search", 16),
    ("bluefin-legal", "Bluefin Legal", None, 17),
    ("cedar-clinics", "Cedar Clinics", None, 12),
    ("delta-freight", "Delta Freight", None, 9),
    ("ember-games", "Ember Games", None, 8),
    ("foxglove-edu", "Foxglove Education", None, 4),
    ("granite-bank", "Granite Bank", None, 2),
)
_TOKENS_OF_A_DAY = {"aurora-search": 423_000, "bluefin-legal": 62_000, "ember-games": 36_000}
"""Of the large model; two of them meet theirs on a busy day."""


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer of the seeded lab."""

    external_entity_id: str
    group_id: str
    charged: tuple[str, ...]
    api_key: str
    share: int
    tokens_of_a_day: int
    """Its own limit of the large model."""


def onboard(api: httpx.Client, upstream: str) -> list[Customer]:
    """Make the lab's models, prices and customers through the management API."""
    for slug in _TOKENS:
        target = {"provider": "OPENAI_COMPATIBLE", "base_url": upstream, "target_model": slug.partition("/")[2]}
        _sent(api, "POST", "/endpoints", {"slug": slug, "targets": [target]})
    price = {"from": "2020-01-01", "currency": "USD", "request": "0"}
    names = ("input", "cached_input", "output")
    prices = [price | {"slug": slug} | dict(zip(names, rates, strict=True)) for slug, rates in _RATES.items()]
    _sent(api, "PUT", "/prices", prices)
    made: dict[str, Customer] = {}
    for external_id, name, parent, share in _CUSTOMERS:
        above = made[parent].charged if parent else ()
        of_a_day = _TOKENS_OF_A_DAY.get(external_id, share * 9_000)
        limits = [{"type": "TOKEN", "unit": "DAY", "threshold": of_a_day}]
        models = [{"slug": slug, "usage_limits": limits if slug == LARGE else []} for slug in _TOKENS]
        models[0]["rate_limits"] = [{"type": "REQUEST", "unit": "MINUTE", "threshold": 600}]
        body = {
            "metadata": {"external_entity_id": external_id, "name": name},
            "models": models,
            "hierarchy": {"limit_enforcement": "CASCADING"} if not parent else {"parent_group_id": above[0]},
        }
        group = _sent(api, "POST", "/groups", body)["id"]
        key = _sent(api, "POST", f"/groups/{group}/api_keys", {"name": "production"})["api_key"]
        made[external_id] = Customer(external_id, group, (group, *above), key, share, of_a_day)
    return list(made.values())


def fill(data: Path, workspace_id: str, customers: Sequence[Customer], days: int, calls: int) -> None:
    """Count `days` of their calls, about `calls` a day, up to now: always the same for the same moment."""
    now = clock.steady()()
    every = sorted(calls_of(workspace_id, customers, now, days, calls), key=lambda event: event.timestamp)
    rest, offset = list(_admitted(every, customers)), 0
    with engines.sqlite(data / installation.DATABASE_FILE) as database:
        while rest:
            some, rest = rest[:_AT_ONCE], rest[_AT_ONCE:]
            batch = EventBatch(_SPOOL, 0, f"{_SPOOL}/0", offset, offset + len(some), tuple(some))
            database.write_now(partial(transaction.apply, batch=batch, clock=clock.steady()))
            offset += len(some)


def _admitted(calls: Sequence[UsageEvent], customers: Sequence[Customer]) -> Iterator[UsageEvent]:
    """Yield the calls that a day limit would have let in, in their order."""
    limits = {customer.group_id: customer.tokens_of_a_day for customer in customers}
    used: Counter[tuple[date, str]] = Counter()
    for call in calls:
        places = [(call.timestamp.date(), group) for group in call.charged_groups if call.model_slug == LARGE]
        if all(used[place] < limits[place[1]] for place in places):
            used.update(dict.fromkeys(places, call.tokens.input_tokens + call.tokens.output_tokens))
            yield call


def calls_of(
    workspace_id: str, customers: Sequence[Customer], now: datetime, days: int, calls: int
) -> Iterator[UsageEvent]:
    """Yield about `calls` calls of each of `days` days and of today up to `now`, in no order."""
    chance = random.Random(7)
    number = 0
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for back in range(days, -1, -1):
        day = midnight - timedelta(days=back)
        busy = (0.55 if day.weekday() > 4 else 1.0) * (1.35 - 0.011 * back) * chance.uniform(0.88, 1.12)
        for _ in range(int(calls * busy)):
            at = day + timedelta(seconds=min(max(chance.gauss(50_400, 16_000), 0), 86_399))
            customer = chance.choices(customers, [each.share for each in customers])[0]
            if at < now:
                number += 1
                yield _call(workspace_id, customer, at, number, chance)


def _call(workspace_id: str, customer: Customer, at: datetime, number: int, chance: random.Random) -> UsageEvent:
    slug = chance.choices(list(_TOKENS), (60, 28, 12))[0]
    usual_in, usual_out = _TOKENS[slug]
    tokens_in = int(usual_in * chance.lognormvariate(0, 0.6)) + 1
    latency = int(_LATENCIES_MS[slug] * chance.lognormvariate(0, 0.35)) + 20
    return UsageEvent(
        idempotency_key=ids.mint(at),
        request_id=ids.uuid7(at),
        timestamp=at,
        workspace_id=workspace_id,
        group_id=customer.group_id,
        charged_groups=customer.charged,
        external_entity_id=customer.external_entity_id,
        api_key_prefix=customer.api_key[:16],
        model_slug=slug,
        tokens=Tokens(
            input_tokens=tokens_in,
            output_tokens=int(usual_out * chance.lognormvariate(0, 0.5)),
            cached_input_tokens=int(tokens_in * chance.choice((0, 0, 0.3, 0.6))),
        ),
        usage_source=UsageSource.PROVIDER,
        outcome=chance.choices([Outcome.COMPLETE, Outcome.CLIENT_DISCONNECTED], (99, 1))[0],
        stream=slug != EMBED and chance.random() < 0.7,
        latency_ms=latency,
        first_byte_ms=latency // 4,
        producer=Producer(instance=_SPOOL, sequence=number),
    )


def _sent(api: httpx.Client, method: str, path: str, body: Any) -> Mapping[str, Any]:
    answer = api.request(method, path, json=body)
    answer.raise_for_status()
    said: Mapping[str, Any] = answer.json()
    return said
