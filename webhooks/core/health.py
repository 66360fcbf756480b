"""Whether a receiver that keeps failing is spared, when it is probed, and what is redriven once it is back.

Never counts an attempt at a delivery: only those that came to their end say whether a receiver is well.

Rules:

- After `dead_before_hold` deliveries in a row became dead letters the receiver is held: first attempts wait.
- While it is held one attempt every `probe_every_s` is its probe. It starts no clock, and leaves what failed as it was.
- The probe is the oldest delivery that waits; after probes that were refused in a row, the next oldest behind as many.
- Any delivery that arrives ends the hold. The dead letters of the last `redrive_within_s` before it are then redriven.
- Redriven deliveries are claimed at most `redrive_per_s` a second, in even steps: time that passes unused buys none.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from webhooks.core.retry import Decision, Delivered, GiveUp, Leave

_STEPS_PER_S = 10  # above it a rate is kept by several deliveries a step: a claim is a transaction


@dataclass(frozen=True, slots=True)
class Rule:
    """When receivers are held and probed. The defaults are the spec's."""

    dead_before_hold: int = 5
    probe_every_s: float = 30.0
    redrive_within_s: float = 86_400.0
    redrives: bool = True
    """Whether a receiver that is back gets its dead letters again by itself."""
    redrive_per_s: float = 10.0

    @property
    def redriven_at_once(self) -> int:
        """How many redriven deliveries of a workspace may be claimed in one step."""
        return max(1, int(self.redrive_per_s / _STEPS_PER_S))

    def next_redriven(self, now: datetime, count: int) -> datetime:
        """Return when more may be claimed after `count` at `now`."""
        return now + timedelta(seconds=count / self.redrive_per_s)

    def next_probe(self, now: datetime) -> datetime:
        """Return when the probe after one at `now` is due."""
        return now + timedelta(seconds=self.probe_every_s)

    def since(self, now: datetime) -> datetime:
        """Return from when on dead letters are probed with, and redriven by themselves; inclusive."""
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
    refused_in_row: int = 0
    """How many of the last probes the receiver refused: as many of the oldest deliveries are passed over."""


def after(health: Health, decision: Decision, now: datetime, rule: Rule) -> Health:
    """Return what is known once a delivery's attempt was decided at `now`; a retry or a release changes nothing."""
    match decision:
        case Delivered():
            return _arrived(health, now, rule)
        case GiveUp():
            dead_in_row = health.dead_in_row + 1
            probe_at = health.probe_at
            if probe_at is None and dead_in_row >= rule.dead_before_hold:
                probe_at = rule.next_probe(now)
            return replace(health, dead_in_row=dead_in_row, probe_at=probe_at)
        case Leave(refused):
            return replace(health, refused_in_row=health.refused_in_row + 1 if refused else 0)
        case _:
            return health


def _arrived(health: Health, now: datetime, rule: Rule) -> Health:
    back = replace(health, dead_in_row=0, probe_at=None, refused_in_row=0)
    if health.probe_at is None or not rule.redrives:
        return back
    since = rule.since(now)
    # What an earlier return left over because the receiver failed again is not forgotten.
    return replace(back, redrive_from=min(since, health.redrive_from or since), redrive_to=now)
