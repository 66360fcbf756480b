"""Whether a receiver that keeps failing is spared, when it is probed, and what is redriven once it is back (spec 5).

Never counts an attempt: only deliveries that came to their end say whether a receiver is well.

Rules:

- After `dead_before_hold` deliveries in a row became dead letters the receiver is held: first attempts wait.
- While it is held one attempt every `probe_every_s` is its probe. It starts no clock, and leaves what failed as it was.
- Any delivery that arrives ends the hold. The dead letters of the last `redrive_within_s` before it are then redriven.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from webhooks.core.retry import Decision, Delivered, GiveUp


@dataclass(frozen=True, slots=True)
class Rule:
    """When receivers are held and probed. The defaults are the spec's."""

    dead_before_hold: int = 5
    probe_every_s: float = 30.0
    redrive_within_s: float = 86_400.0
    redrives: bool = True
    """Whether a receiver that is back gets its dead letters again by itself."""

    def next_probe(self, now: datetime) -> datetime:
        """Give when the probe after one at `now` is due."""
        return now + timedelta(seconds=self.probe_every_s)

    def since(self, now: datetime) -> datetime:
        """Give from when on dead letters are probed with, and redriven by themselves; inclusive."""
        return now - timedelta(seconds=self.redrive_within_s)


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one receiver."""

    dead_in_row: int = 0
    probe_at: datetime | None = None
    """When the next probe is due; None: the receiver is not held."""
    redrive_from: datetime | None = None
    redrive_to: datetime | None = None
    """Which dead letters, by the moment they were given up, both inclusive, are still to be redriven; None: none."""


def after(health: Health, decision: Decision, now: datetime, rule: Rule) -> Health:
    """Give what is known once a delivery's attempt was decided at `now`; what ends no delivery changes nothing."""
    match decision:
        case Delivered():
            return _arrived(health, now, rule)
        case GiveUp():
            dead_in_row = health.dead_in_row + 1
            probe_at = health.probe_at
            if probe_at is None and dead_in_row >= rule.dead_before_hold:
                probe_at = rule.next_probe(now)
            return replace(health, dead_in_row=dead_in_row, probe_at=probe_at)
        case _:
            return health


def _arrived(health: Health, now: datetime, rule: Rule) -> Health:
    back = replace(health, dead_in_row=0, probe_at=None)
    if health.probe_at is None or not rule.redrives:
        return back
    since = rule.since(now)
    # What an earlier return left over because the receiver failed again is not forgotten.
    return replace(back, redrive_from=min(since, health.redrive_from or since), redrive_to=now)
