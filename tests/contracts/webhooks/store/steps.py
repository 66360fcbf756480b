"""What the contract of `Deliveries` is told in: keep, claim, lose and hold, in seconds from the start."""

from collections.abc import Callable
from typing import NamedTuple

from tests.unit.webhooks import kit
from webhooks.core.deliveries import Attempt, Claim, ClaimEnd, Queue, Share
from webhooks.core.retry import GiveUp, Release
from webhooks.flow.ports import Deliveries

LEASE_S = 30.0
TRIED = Attempt(kit.START, 500, None, 12)


class Stage(NamedTuple):
    """Deliveries, and what was kept of the attempts of one, in their order."""

    deliveries: Deliveries
    attempts: Callable[[str], list[Attempt]]


def share(count: int = 10, workspace_id: str = "ws", *, queue: Queue = Queue.FIRST) -> Share:
    return Share(workspace_id, queue, count)


async def claim_one(deliveries: Deliveries, at_s: float = 0, *, queue: Queue = Queue.FIRST, count: int = 10) -> Claim:
    (claim,) = await deliveries.claim([share(count, queue=queue)], kit.after(at_s))
    return claim


async def ids_due(deliveries: Deliveries, at_s: float, *shares: Share) -> list[str]:
    return [claim.delivery_id for claim in await deliveries.claim(shares or (share(),), kit.after(at_s))]


async def keep(deliveries: Deliveries, *delivery_ids: str, workspace_id: str = "ws", first: int = 1) -> None:
    events = [kit.event(first + number, workspace_id) for number, _ in enumerate(delivery_ids)]
    drafts = [kit.draft(delivery_id, event) for delivery_id, event in zip(delivery_ids, events, strict=True)]
    topic = f"spool/{workspace_id}"
    await deliveries.enqueue(drafts, [kit.batch(*events, first=first, topic=topic)], kit.START)


async def lose(deliveries: Deliveries, *delivery_ids: str, at_s: float = 0) -> None:
    """Let each of these, which must be due, become a dead letter; what else is due waits on."""
    claims = {claim.delivery_id: claim for claim in await deliveries.claim([share()], kit.after(at_s))}
    for delivery_id in delivery_ids:
        lost = ClaimEnd(claims.pop(delivery_id), TRIED, GiveUp("answered 410"))
        await deliveries.finish([lost], kit.after(at_s))
    await deliveries.finish([ClaimEnd(claim, None, Release()) for claim in claims.values()], kit.after(at_s))


async def hold(deliveries: Deliveries, *, at_s: float = 0) -> None:
    """Lose five deliveries in a row."""
    names = [f"lost-{number}" for number in range(5)]
    await keep(deliveries, *names)
    await lose(deliveries, *names, at_s=at_s)
