"""A delivery that is too large for its receiver becomes deliveries of one event each, with nothing lost or changed."""

import json

from sqlalchemy import select

from runtime.database.engines import Database
from tests.integration.webhooks.store.test_redrive import LEASE, RULE, Desk
from tests.unit.webhooks import kit
from webhooks.core import batching
from webhooks.core.deliveries import Attempt, ClaimEnd, Queue, Share
from webhooks.core.retry import Delivered, Split
from webhooks.store import claims, deliveries, pages, tables

TOO_LARGE = Attempt(kit.START, 413, None, 12)


def test_each_event_is_delivered_by_itself_in_the_bytes_it_was_frozen_in(database: Database) -> None:
    desk = Desk(database)
    events = (kit.event(1), kit.correction(2), kit.event(3))
    desk.write(deliveries.enqueue, [kit.draft("whole", *events)], [kit.batch(*events)], kit.START)
    (claim,) = desk.write(claims.claim, [Share("ws", Queue.FIRST, 9)], kit.after(1), LEASE, RULE)
    assert claim.event_count == 3
    end = ClaimEnd(claim, TOO_LARGE, Split())
    for _ in range(2):  # it may be repeated
        desk.write(deliveries.finish, [end], kit.after(2), RULE)
    parts = desk.write(claims.claim, [Share("ws", Queue.FIRST, 9)], kit.after(2), LEASE, RULE)
    assert sorted(part.body for part in parts) == sorted(batching.freeze([batching.bill(one)]) for one in events)
    assert {(part.event_count, part.attempt_number) for part in parts} == {(1, 1)}
    for part in parts:
        row = desk.row(part.delivery_id)
        assert (row.created_at, row.attempt_count) == (kit.START, 1)
    query = select(tables.DELIVERY_EVENT.c.idempotency_key, tables.DELIVERY_EVENT.c.delivery_id)
    owned = dict(desk.write(lambda connection: connection.execute(query).all()))
    keys = {part.delivery_id: json.loads(part.body)["data"]["events"][0]["idempotencyKey"] for part in parts}
    assert owned == {key: delivery_id for delivery_id, key in keys.items()}
    assert desk.write(pages.owner, "whole") is None
    settled = [ClaimEnd(part, Attempt(kit.after(3), 200, None, 1), Delivered()) for part in parts]
    desk.write(deliveries.finish, settled, kit.after(3), RULE)
    assert desk.due() == {}
    attempts = select(tables.ATTEMPT.c.delivery_id, tables.ATTEMPT.c.status_code).order_by(tables.ATTEMPT.c.number)
    made: dict[str, list[int]] = {}
    for delivery_id, code in desk.write(lambda connection: connection.execute(attempts).all()):
        made.setdefault(delivery_id, []).append(code)
    assert made == {part.delivery_id: [413, 200] for part in parts}
