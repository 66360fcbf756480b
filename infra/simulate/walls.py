"""Where an installation stops growing, by formulas over what one event and one decision cost.

Rates are per second, costs in microseconds of CPU, sizes in bytes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

TURN_S = 0.06
"""Between two transactions of metering that name a busy counter: the gathering of a batch and its transaction."""

TELL_S = 30.0
"""Between two tellings of a counter that is in use, far from its limits (`metering.core.telling`)."""

LEDGER_DAYS, TOPIC_DAYS, COPIES = 130, 35, 3
DAY_S = 86_400
DISK = 4e12
"""What is taken for a disk: 4 TB."""

_EXACT = 2000  # ranks that are summed one by one


@dataclass(frozen=True, slots=True)
class Constants:
    """What things cost on one machine."""

    request_us: float
    """A proxy's own work on one request."""
    decision_us: float
    """A proxy's work on one decision that it hears."""
    event_us: float
    """Metering's work on one event."""
    counter_us: float
    """Metering's work on one counter that a batch names."""
    decision_bytes: float
    event_bytes: float
    ledger_bytes: float
    """One event in the ledger, its indexes included."""


@dataclass(frozen=True, slots=True)
class Point:
    """An installation under load; its groups are as unlike as words of a language (Zipf's law)."""

    name: str
    requests: float
    proxies: int
    groups: int
    partitions: int = 12


POINTS = (
    Point("one box", 1_000, 1, 1_000),
    Point("10 proxies", 20_000, 10, 10_000),
    Point("200 proxies", 200_000, 200, 1_000_000, 64),
)


def told(point: Point) -> float:
    """Return how many decisions metering tells: a counter in use is told once in TELL_S, near a limit oftener."""
    return _once_in(TELL_S, point)


def named(point: Point) -> float:
    """Return how many counters metering's transactions name: one in use by each that has an event of it."""
    return _once_in(TURN_S, point)


def _once_in(time_s: float, point: Point) -> float:
    ranks = list(_ranks(point.groups))
    whole = sum(many / rank for many, rank in ranks)
    rates = ((many, point.requests / rank / whole) for many, rank in ranks)
    return sum(many * -math.expm1(-rate * time_s) / time_s for many, rate in rates)


def _ranks(groups: int) -> Iterator[tuple[int, float]]:
    """Return (how many, rank): the first one by one, then some together."""
    for rank in range(1, min(groups, _EXACT) + 1):
        yield 1, rank
    rank = _EXACT + 1
    while rank <= groups:
        many = min(groups - rank + 1, max(1, rank // 50))
        yield many, rank + many / 2
        rank += many


def at(point: Point, costs: Constants) -> dict[str, float]:
    """Return what a point costs, by what it is."""
    decisions = told(point)
    return {
        "decisions told a second": decisions,
        "MB of decisions that all proxies read a second": decisions * costs.decision_bytes * point.proxies / 1e6,
        "cores of a proxy for decisions": decisions * costs.decision_us / 1e6,
        "us of decisions for each of a proxy's own requests": decisions
        * costs.decision_us
        * point.proxies
        / point.requests,
        "cores of metering": (point.requests * costs.event_us + named(point) * costs.counter_us) / 1e6,
        "GB of ledger a day": point.requests * DAY_S * costs.ledger_bytes / 1e9,
        "GB of Kafka a day": point.requests * DAY_S * costs.event_bytes * COPIES / 1e9,
    }


def walls(point: Point, costs: Constants) -> dict[str, float]:
    """Return the requests a second at which each wall is met, by what is full then, the nearest first.

    As many requests a group, and as many decisions a request, as at the point.
    """
    each = told(point) / point.requests
    worker = 1e6 / (costs.event_us + named(point) / point.requests * costs.counter_us)
    found = {
        "a 4 TB disk of PostgreSQL's": DISK / (costs.ledger_bytes * LEDGER_DAYS * DAY_S),
        "a 4 TB disk of each of 3 brokers'": DISK / (costs.event_bytes * TOPIC_DAYS * DAY_S),
        "one tree: its lane has one worker": worker,
        "a metering worker on each partition": worker * point.partitions,
        "proxies' cores: as many for decisions as for requests": 1e6 / (2 * each * costs.decision_us),
        "no proxy has a core left beside decisions": 1e6 / (each * costs.decision_us),
    }
    return dict(sorted(found.items(), key=lambda wall: wall[1]))
