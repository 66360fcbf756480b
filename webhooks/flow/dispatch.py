"""Dispatch, the second half of the dispatcher's story: claim, prepare, sign, send, finish.

An attempt that was made is kept until its result is written, also while the database is away.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

from runtime.clock import Clock, Steady
from runtime.telemetry.traces import SpanKind, Traces
from webhooks.core import fairness, retry, signing
from webhooks.core.absences import Absences
from webhooks.core.deliveries import (
    Attempt,
    Claim,
    ClaimEnd,
    Prepared,
    Queue,
    Status,
)
from webhooks.core.fairness import AttemptLimits
from webhooks.core.pace import Pace
from webhooks.core.retry import Policy
from webhooks.flow.ports import Deliveries, Receivers, Sender

_TRACE_EVERY_S = 60.0
"""How often at most an unexpected error's trace is logged: a receiver may cause one with each attempt."""

_log = logging.getLogger(__name__)


class Dispatch:
    """Brings pending deliveries to their receivers."""

    def __init__(
        self,
        deliveries: Deliveries,
        receivers: Receivers,
        sender: Sender,
        *,
        clock: Clock,
        present: Clock,
        jitter: Callable[[], float],
        policy: Policy,
        limits: AttemptLimits,
        per_s: int | None = None,
        steady: Steady = time.monotonic,
        traces: Traces | None = None,
    ) -> None:
        """`per_s` bounds the attempts at one receiver within a second; `present`, what is signed, may step back."""
        self._traces = traces
        self._deliveries = deliveries
        self._receivers = receivers
        self._sender = sender
        self._clock = clock
        self._present = present
        self._steady = steady
        self._jitter = jitter
        self._policy = policy
        self._limits = limits
        self._pace = Pace(per_s)
        self._absences = Absences(policy.away_after_s)
        self._in_flight: Counter[fairness.WorkspaceQueue] = Counter()
        self._failing: set[str] = set()
        self._losing: set[str] = set()
        self._traced_at_s: float | None = None
        self.overdue_s = 0.0
        """For how long at the last look the oldest delivery had been due that may be attempted, in seconds."""
        self._ended: list[ClaimEnd] = []
        self.attempts: Counter[str] = Counter()
        """Attempts written since the start, by the class of their status."""
        self.ended: Counter[Status] = Counter()
        """Deliveries brought to their end since the start."""

    @property
    def is_idle(self) -> bool:
        """Whether no attempt is in flight and each that has ended is written."""
        return not self._in_flight and not self._ended

    @property
    def in_flight(self) -> int:
        """How many attempts are under way."""
        return self._in_flight.total()

    async def finish(self) -> None:
        """Write the attempts that have ended; where that fails they are kept for the next call."""
        ended = tuple(self._ended)
        if ended:
            await self._deliveries.finish(ended, self._clock())
            del self._ended[: len(ended)]
            for end in ended:
                self._count(end)
                self._trace(end)

    def _trace(self, end: ClaimEnd) -> None:
        attempt = end.attempt
        if self._traces is not None and attempt is not None:
            began_s = attempt.at.timestamp()
            told: dict[str, str | int] = {
                "tollgate.delivery_id": end.claim.delivery_id,
                "tollgate.attempt": end.claim.attempt_number,
                "http.response.status_code": attempt.status_code or 0,
            }
            times_s = began_s, began_s + attempt.duration_ms / 1000
            self._traces.add("webhook attempt", SpanKind.CLIENT, end.claim.traces, times_s, told)

    async def claim(self) -> tuple[Sequence[Claim], float | None]:
        """Claim what may be attempted now; return it, and in how many seconds the next is due of what had to wait.

        Each claim must be handed to `attempt`. Deliveries of a receiver that is not ready wait unclaimed.
        """
        now, now_s = self._clock(), self._steady()
        waiting = [
            one for one in await self._deliveries.waiting() if self._receivers.receiver(one.workspace_id, now).is_ready
        ]
        self._absences.note((one.workspace_id for one in waiting), now)
        due = [one for one in waiting if one.due_at <= now]
        self.overdue_s = max(((now - one.due_at).total_seconds() for one in due), default=0.0)
        left = self._pace.left({one.workspace_id for one in due}, now_s)
        shares = fairness.share(due, self._in_flight, self._failing, self._limits, left)
        takes_over = self._absences.takes_over(now)
        claims = await self._deliveries.claim(shares, now, takes_over=takes_over) if shares else ()
        for claim in claims:
            self._in_flight[claim.workspace_id, claim.queue] += 1
            self._pace.begin(claim.workspace_id, self._steady())  # claiming has taken its time
        rests_s = [(one.due_at - now).total_seconds() for one in waiting if one.due_at > now]
        rests_s += [at_s - now_s for at_s in map(self._pace.free_at_s, left) if at_s is not None]
        return claims, min(rests_s, default=None)

    async def attempt(self, claim: Claim) -> None:
        """Make the attempt that `claim` is for; what became of it is written by the next `finish`."""
        place = (claim.workspace_id, claim.queue)
        try:
            self._ended.append(await self._deliver(claim))
        finally:
            self._in_flight[place] -= 1
            if not self._in_flight[place]:
                del self._in_flight[place]

    async def _deliver(self, claim: Claim) -> ClaimEnd:
        started_at = self._clock()
        turn = self._absences.turn(claim, started_at)
        try:
            prepared = self._prepare(claim, turn)
            if prepared is None or not claim.holds(started_at, prepared.timeout_s):
                return ClaimEnd(claim, None, retry.Release())
            result = await self._sender.send(prepared)
        except Exception as error:  # noqa: BLE001 - one receiver's oddity must not end every lab's deliveries
            result = self._unexpected(claim, error, started_at)
        return self._judged(claim, turn, result)

    def _judged(self, claim: Claim, turn: retry.Turn, result: retry.AttemptResult) -> ClaimEnd:
        if claim.queue is Queue.PROBE:
            decision = retry.decide_probe(result)
        else:
            now, jitter, events = self._clock(), self._jitter(), claim.event_count
            decision = retry.decide(result, turn, now, self._policy, jitter, events=events)
        self._note(claim, decision)
        attempt = Attempt(turn.started_at, result.status_code, result.error, result.duration_ms, result.answer)
        return ClaimEnd(claim, attempt, decision)

    def _unexpected(self, claim: Claim, error: Exception, started_at: datetime) -> retry.AttemptResult:
        """Make of an error that nobody foresaw a failed attempt; its trace is logged, once a minute at most."""
        now_s = self._steady()
        if self._traced_at_s is None or now_s - self._traced_at_s >= _TRACE_EVERY_S:
            self._traced_at_s = now_s
            text = "an attempt at delivery %s of workspace %s failed unexpectedly"
            _log.error(text, claim.delivery_id, claim.workspace_id, exc_info=error)
        text = f"unexpected {type(error).__name__} in Tollgate; its log has the trace"
        return retry.AttemptResult(None, text, round((self._clock() - started_at).total_seconds() * 1000))

    def _count(self, end: ClaimEnd) -> None:
        if end.attempt is not None:
            status = end.attempt.status_code
            self.attempts["no_answer" if status is None else f"{status // 100}xx"] += 1
        if isinstance(end.decision, retry.Delivered | retry.GiveUp):
            delivered = isinstance(end.decision, retry.Delivered)
            self.ended[Status.DELIVERED if delivered else Status.DEAD] += 1

    def _note(self, claim: Claim, decision: retry.Decision) -> None:
        """Remember which receivers fail, and say once of each that its deliveries become dead letters."""
        workspace_id = claim.workspace_id
        if isinstance(decision, retry.Split):
            _log.info("delivery %s of %d events is split: answered 413", claim.delivery_id, claim.event_count)
            return
        if isinstance(decision, retry.Delivered):
            self._failing.discard(workspace_id)
            self._losing.discard(workspace_id)
            return
        self._failing.add(workspace_id)
        if isinstance(decision, retry.GiveUp) and workspace_id not in self._losing:
            self._losing.add(workspace_id)
            _log.warning("deliveries of workspace %s become dead letters: %s", workspace_id, decision.reason)

    def _prepare(self, claim: Claim, turn: retry.Turn) -> Prepared | None:
        """Sign with the secrets of this moment; None where the receiver went away since the claim."""
        receiver = self._receivers.receiver(claim.workspace_id, turn.started_at)
        if receiver.url is None or not receiver.is_ready:
            return None
        headers = signing.sign(claim.body, claim.delivery_id, receiver.secrets, self._present())
        timeout_s = retry.attempt_timeout_s(turn, self._policy)
        return Prepared(receiver.url, headers, claim.body, timeout_s, claim.workspace_id)
