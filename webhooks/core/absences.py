"""Since when a dispatcher has looked after its receivers without a gap: what was due before that found nobody there.

Who was away for long looks on for a while before it takes over claims whose leases ran out. The database may have been
away for all, and then whoever made those attempts has their outcomes in hand: written first, they keep what has arrived
from being sent again.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from webhooks.core.deliveries import Claim
from webhooks.core.retry import Turn

LONG = timedelta(seconds=10)
"""No lease of an attempt that is under way runs out in a shorter gap: it is longer than the attempt by more than that
(`webhooks.policies`)."""

SETTLING = timedelta(seconds=10)
"""Longer than a dispatcher rests in an outage before it tries again (`runtime.outage`)."""


class Absences:
    """The turns of one dispatcher. A gap above `gap_s` between two of them is an absence."""

    def __init__(self, gap_s: float) -> None:
        self._gap = timedelta(seconds=gap_s)
        self._turned_at: datetime | None = None
        self._takes_over_from: datetime | None = None
        self._was_long = False
        self._since: dict[str, datetime] = {}

    def note(self, workspace_ids: Iterable[str], now: datetime) -> None:
        """Note a turn at `now`; `workspace_ids` have something that waits, and a receiver that may be tried."""
        rest = None if self._turned_at is None else now - self._turned_at
        is_long = rest is not None and rest > LONG
        if rest is None or (is_long and not self._was_long):  # turns that are slow one after another are no absence
            self._takes_over_from = now + SETTLING
        self._was_long = is_long
        before = self._since if rest is not None and rest <= self._gap else {}
        self._since = {workspace_id: before.get(workspace_id, now) for workspace_id in workspace_ids}
        self._turned_at = now

    def takes_over(self, now: datetime) -> bool:
        """Tell whether claims whose leases ran out may be claimed."""
        return self._takes_over_from is not None and now >= self._takes_over_from

    def turn(self, claim: Claim, started_at: datetime) -> Turn:
        """Return the place of an attempt that begins at `started_at` in its run."""
        first_at = claim.first_attempt_at if claim.is_begun else started_at
        was_away = claim.is_begun and self._was_away(claim, started_at)
        return Turn(claim.attempt_number, first_at, claim.planned_at, started_at, was_away)

    def _was_away(self, claim: Claim, started_at: datetime) -> bool:
        due_at = max(claim.planned_at, claim.first_attempt_at)
        since = self._since.get(claim.workspace_id, due_at)
        return claim.was_lost or since > due_at + self._gap or started_at > claim.claimed_at + self._gap
