"""What webhooks' tests build on: events, a clock moved by hand, and a fake for each port."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from domain.ledger_days import Days
from domain.positions import PositionLostError
from domain.sources import EventBatch
from schemas.spooled import AnyEvent
from schemas.usage import Kind, Outcome, Producer, Tokens, UsageEvent, UsageSource
from webhooks.core import batching, health
from webhooks.core.deliveries import (
    Attempt,
    Claim,
    ClaimEnd,
    Draft,
    Prepared,
    Queue,
    Receiver,
    Share,
    Status,
    WaitingQueue,
)
from webhooks.core.health import Health, Rule
from webhooks.core.retry import AttemptResult, Delivered, GiveUp, Leave, Release, RetryAt

START = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
OLDER_SECRET = "whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
TOPIC = "spool/one"
WELL = Health()


class HandClock:
    """A clock that stands until it is moved."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        """Return the same as a `Steady`."""
        return (self.now - START).total_seconds()

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def event(number: int, workspace_id: str = "ws", *, key: str | None = None) -> UsageEvent:
    return UsageEvent(
        idempotency_key=key or f"key-{number:06}",
        request_id=f"request-{number}",
        timestamp=START,
        workspace_id=workspace_id,
        group_id="group",
        charged_groups=("group",),
        external_entity_id="customer",
        api_key_prefix="sky_aaaaaaaaaaaa",
        model_slug="lab/model",
        request_metadata={"team": "räksmörgås"},
        tokens=Tokens(input_tokens=number, output_tokens=2 * number, cached_input_tokens=1),
        usage_source=UsageSource.PROVIDER,
        outcome=Outcome.COMPLETE,
        stream=False,
        latency_ms=1,
        first_byte_ms=1,
        producer=Producer(instance="one", sequence=max(number, 1)),
    )


def correction(number: int) -> UsageEvent:
    changes = {"kind": Kind.CORRECTION, "corrects": "key-000001", "reason": "counted twice", "charged_groups": ()}
    return event(number).model_copy(update=changes)


def batch(*events: UsageEvent, first: int = 1, topic: str = TOPIC) -> EventBatch:
    return EventBatch(topic, 0, "lane", first, first + len(events), events)


def draft(delivery_id: str, *events: UsageEvent, status: Status = Status.PENDING) -> Draft:
    return Draft(delivery_id, events[0].workspace_id, status, tuple(map(batching.bill, events)))


class ListPartition:
    """A partition over a list; an event's offset is its place, from 1. Waiting ends when the clock was moved on."""

    topic = TOPIC
    index = 0
    first_offset = 1

    def __init__(self, clock: HandClock, events: Sequence[UsageEvent] = ()) -> None:
        self.events = list(events)
        self.waits: list[tuple[int, float]] = []
        self.reads: list[int] = []
        self.coming: list[tuple[datetime, UsageEvent]] = []
        self._clock = clock

    async def read(self, offset: int, limit: int) -> EventBatch:
        self.reads.append(offset)
        events = tuple(self.events[offset - 1 : offset - 1 + limit])
        return EventBatch(self.topic, self.index, "lane", offset, offset + len(events), events)

    async def wait(self, offset: int, timeout_s: float) -> None:
        self.waits.append((offset, timeout_s))
        ends = self._clock.now + timedelta(seconds=timeout_s)
        while len(self.events) < offset and self.coming and self.coming[0][0] <= ends:
            self._clock.now, event = self.coming.pop(0)
            self.events.append(event)
        if len(self.events) < offset:
            self._clock.now = ends


class FixedLedger:
    """A ledger whose days, and whose answer on what is far ahead, are as they were set."""

    def __init__(self, known: Days, counted: Collection[str] | None = ()) -> None:
        self.known = known
        self.counted_keys = counted
        self.asked: list[list[str]] = []

    def days(self, connection: object) -> Days:
        return self.known

    def counted(self, connection: object, batch: EventBatch, events: Sequence[AnyEvent]) -> Collection[str] | None:
        self.asked.append([event.idempotency_key for event in events])
        return self.counted_keys


class FixedReceivers:
    """The same receivers at every moment, until one is set."""

    def __init__(self, **receivers: Receiver) -> None:
        self.receivers = receivers

    def receiver(self, workspace_id: str, now: datetime) -> Receiver:
        return self.receivers.get(workspace_id, Receiver(None, enabled=False, secrets=()))


class ScriptedSender:
    """Return the outcomes it was told, the last one again and again; keeps what it was asked to send."""

    def __init__(self, *outcomes: AttemptResult) -> None:
        self.outcomes = list(outcomes)
        self.sent: list[Prepared] = []

    async def send(self, prepared: Prepared) -> AttemptResult:
        self.sent.append(prepared)
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]


def answered(status_code: int, retry_after: str | None = None) -> AttemptResult:
    return AttemptResult(status_code, None, 5, retry_after)


def failed(error: str = "no answer within 10 s") -> AttemptResult:
    return AttemptResult(None, error, 10_000)


class _Kept:
    """One delivery of the fake."""

    def __init__(self, draft: Draft, now: datetime) -> None:
        self.draft = draft
        self.status = draft.status
        self.reason: str | None = None
        self.attempts: list[Attempt] = []
        self.run_attempts = 0
        self.queue = Queue.FIRST
        self.token: str | None = None
        self.first_attempt_at: datetime | None = None
        self.next_attempt_at = now
        self.claimable_at = now
        self.settled_at: datetime | None = None
        self.refused = False


class ListDeliveries:
    """The `Deliveries` port in memory."""

    def __init__(self, lease_s: float = 30, rule: Rule | None = None) -> None:
        self.kept: dict[str, _Kept] = {}
        self.keys: set[tuple[str, str]] = set()
        self.positions: dict[tuple[str, int], int] = {}
        self.health: dict[str, Health] = {}
        self._lease = timedelta(seconds=lease_s)
        self._rule = rule or Rule()
        self._claims = 0

    async def enqueue(self, drafts: Sequence[Draft], batches: Sequence[EventBatch], now: datetime) -> None:
        places = {(batch.topic, batch.partition): batch for batch in batches}
        for place, batch in places.items():
            if self.positions.get(place, batch.first_offset) != batch.first_offset:
                raise PositionLostError(batch)
        self.positions |= {place: batch.next_offset for place, batch in places.items()}
        for one in drafts:
            keys = {(one.workspace_id, billed.event.idempotency_key): billed for billed in one.events}
            new = tuple(billed for key, billed in keys.items() if key not in self.keys)
            self.keys.update(keys)
            if new:
                self.kept[one.id] = _Kept(Draft(one.id, one.workspace_id, one.status, new), now)

    async def position(self, topic: str, partition: int) -> int | None:
        return self.positions.get((topic, partition))

    async def waiting(self) -> Sequence[WaitingQueue]:
        held = {name: known.probe_at for name, known in self.health.items() if known.probe_at is not None}
        earliest: dict[tuple[str, Queue], datetime] = {(name, Queue.PROBE): at for name, at in held.items()}
        for kept in self._pending():
            place = (kept.draft.workspace_id, kept.queue)
            if kept.queue is not Queue.FIRST or kept.draft.workspace_id not in held:
                earliest[place] = min(earliest.get(place, kept.claimable_at), kept.claimable_at)
        return [WaitingQueue(workspace_id, queue, due_at) for (workspace_id, queue), due_at in earliest.items()]

    async def claim(self, shares: Sequence[Share], now: datetime, *, takes_over: bool = True) -> Sequence[Claim]:
        claims = []
        for share in shares:
            for kept in self._probe(share, now) if share.queue is Queue.PROBE else self._due(share, now):
                if kept.token is not None and not takes_over:
                    continue
                was_lost = kept.token is not None
                self._claims += 1
                kept.token = str(self._claims)
                kept.claimable_at = now + self._lease
                if share.queue is not Queue.PROBE:
                    kept.first_attempt_at = kept.first_attempt_at or now
                claims.append(replace(self._claim(kept, share.queue, kept.token, now), was_lost=was_lost))
        return claims

    async def finish(self, ends: Sequence[ClaimEnd], now: datetime) -> None:
        for end in ends:
            kept = self.kept[end.claim.delivery_id]
            delivered = isinstance(end.decision, Delivered) and kept.status is not Status.DELIVERED
            if not delivered and (isinstance(end.decision, Delivered) or kept.token != end.claim.token):
                continue
            kept.token = None
            if end.attempt is not None:
                kept.attempts.append(end.attempt)
            workspace_id = kept.draft.workspace_id
            known = self.health.get(workspace_id, WELL)
            self.health[workspace_id] = health.after(known, end.decision, now, self._rule)
            match end.decision:
                case Delivered():
                    kept.status, kept.settled_at = Status.DELIVERED, now
                case GiveUp(reason, refused):
                    kept.status, kept.reason, kept.settled_at = Status.DEAD, reason, now
                    kept.refused = refused
                case RetryAt(when):
                    kept.run_attempts += 1
                    kept.queue, kept.next_attempt_at, kept.claimable_at = Queue.RETRY, when, when
                case Leave():
                    kept.claimable_at = kept.next_attempt_at
                case Release():
                    kept.claimable_at = kept.next_attempt_at
                    kept.first_attempt_at = kept.first_attempt_at if kept.run_attempts else None

    def _pending(self) -> list[_Kept]:
        return [kept for kept in self.kept.values() if kept.status is Status.PENDING]

    def _due(self, share: Share, now: datetime) -> list[_Kept]:
        place = (share.workspace_id, share.queue)
        of_lane = [kept for kept in self._pending() if (kept.draft.workspace_id, kept.queue) == place]
        due = [kept for kept in of_lane if kept.claimable_at <= now]
        return sorted(due, key=lambda kept: kept.claimable_at)[: share.count]

    def _probe(self, share: Share, now: datetime) -> list[_Kept]:
        known = self.health.get(share.workspace_id, WELL)
        if known.probe_at is None or known.probe_at > now:
            return []
        self.health[share.workspace_id] = replace(known, probe_at=self._rule.next_probe(now))
        dead = [kept for kept in self.kept.values() if kept.status is Status.DEAD]
        recent = [
            kept
            for kept in dead
            if kept.draft.workspace_id == share.workspace_id
            and not kept.refused
            and (kept.settled_at or now) >= self._rule.since(now)
        ]
        candidates = [*self._due(Share(share.workspace_id, Queue.FIRST, len(self.kept)), now), *recent]
        return [candidates[known.refused_in_row % len(candidates)]] if candidates else []

    def _claim(self, kept: _Kept, queue: Queue, token: str, now: datetime) -> Claim:
        is_probe = queue is Queue.PROBE
        return Claim(
            delivery_id=kept.draft.id,
            token=token,
            workspace_id=kept.draft.workspace_id,
            body=b" ".join(billed.event.idempotency_key.encode() for billed in kept.draft.events),
            queue=queue,
            attempt_number=kept.run_attempts + 1,
            first_attempt_at=now if is_probe else kept.first_attempt_at or now,
            planned_at=now if is_probe else kept.next_attempt_at,
            claimed_at=now,
            lease_ends_at=now + self._lease,
        )
