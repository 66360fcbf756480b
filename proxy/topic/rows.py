"""A spool's row as the publisher needs it: the record that Kafka gets, and what its retention asks.

`proxy.core.usage_event` writes an event with all that its route decides in
one place, between members whose length never differs: what such bytes say is worked out once a route. An event of
another form (a correction's, or of a request that was in flight when the gateway died) is decoded.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from proxy.core import usage_event
from proxy.spool.spreads import Spreads
from runtime.kafka import writer
from runtime.kafka.writer import PlainRecord
from schemas.topics import USAGE_EVENTS

EVENT_TYPE = f"tollgate.{USAGE_EVENTS}"
"""A usage event's `ce_type`."""

_MOST_ROUTES = 10_000
"""Known at once; beyond it all are worked out anew."""
_KEY, _REQUEST, _TIME = b'{"idempotencyKey":"', b'","requestId":"', b'","timestamp":"'
_ULID, _UUID, _RFC3339 = 26, 36, 24
_KEY_AT = len(_KEY)
_REQUEST_AT = _KEY_AT + _ULID
_TIME_AT = _REQUEST_AT + len(_REQUEST) + _UUID
_MOMENT_AT = _TIME_AT + len(_TIME)
_ROUTE_AT = _MOMENT_AT + _RFC3339 + len(b'",')
_ROUTE_END = b',"apiKeyPrefix":'


class Charged(NamedTuple):
    """Whom an event is charged to: what all events of a route have in common."""

    groups: tuple[str, ...]
    slug: str
    key: bytes
    """The record's."""
    partition: int
    """Where the row lies."""


Head = tuple[int, str, Charged]
"""Sequence, UTC day, whom it is charged to."""

Row = tuple[int, str, Charged, PlainRecord, int]
"""A row as the reading thread makes it: a `Head`, its record, its size in bytes. Plain, as PlainRecord is."""


class _Route(msgspec.Struct, rename="camel", gc=False):
    charged_groups: tuple[str, ...]
    model_slug: str


class _Event(_Route, rename="camel", gc=False):
    idempotency_key: str
    timestamp: str


_decode_route = msgspec.json.Decoder(_Route).decode
_decode_event = msgspec.json.Decoder(_Event).decode


def former(instance: str, partitions: int, spreads: Spreads) -> Callable[[int, bytes], Row]:
    """Make what forms a row; `spreads` says which lanes the rows of busy trees lie in."""
    headers = writer.cloud_events(EVENT_TYPE, instance)
    routes: dict[bytes, Charged | None] = {}
    """By the bytes between the fixed members and the key's prefix; None: they do not hold all of it."""

    def charged(route: _Route) -> Charged:
        key = route.charged_groups[-1].encode()
        return Charged(route.charged_groups, route.model_slug, key, writer.partition_of(key, partitions))

    def of_route(route: bytes) -> Charged | None:
        if len(routes) >= _MOST_ROUTES:
            routes.clear()
        try:
            routes[route] = charged(_decode_route(b"{%b}" % route))
        except msgspec.DecodeError:
            routes[route] = None
        return routes[route]

    def form(sequence: int, body: bytes) -> Row:
        whose = None
        end = body.find(_ROUTE_END, _ROUTE_AT)
        if (
            end > 0
            and body.startswith(_KEY)
            and body.startswith(_REQUEST, _REQUEST_AT)
            and body.startswith(_TIME, _TIME_AT)
            and body.startswith(b'",', _ROUTE_AT - 2)
        ):
            route = body[_ROUTE_AT:end]
            whose = routes[route] if route in routes else of_route(route)
            id_, at = body[_KEY_AT:_REQUEST_AT], body[_MOMENT_AT : _MOMENT_AT + _RFC3339]
        if whose is None:
            event = _decode_event(body)
            whose, id_, at = charged(event), event.idempotency_key.encode(), event.timestamp.encode()
        if spreads:
            whose = _laid(whose, spreads, partitions, sequence)
        return sequence, at[:10].decode(), whose, (whose.key, body, headers(id_, at)), len(body)

    return form


def traced(form: Callable[[int, bytes], Row]) -> Callable[[int, bytes], Row]:
    """Return `form` so that a record whose event names its trace has a header that does so too."""

    def with_trace(sequence: int, body: bytes) -> Row:
        row = form(sequence, body)
        trace = usage_event.trace_of(body)
        if not trace:
            return row
        _, day, whose, (key, value, headers), size_bytes = row
        return sequence, day, whose, (key, value, [*headers, ("traceparent", trace)]), size_bytes

    return with_trace


def _laid(whose: Charged, spreads: Spreads, partitions: int, sequence: int) -> Charged:
    """Return the same with the lane that this row lies in."""
    root = whose.groups[-1]
    if root not in spreads:
        return whose
    return whose._replace(partition=spreads.lane(root, whose.partition, partitions, sequence))
