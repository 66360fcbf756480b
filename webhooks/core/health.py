"""Whether a receiver that keeps failing is spared, when it is probed, and what is redriven once it is back.

Never counts a retry: only first attempts and deliveries that came to their end say whether a receiver is well.

Rules:

- What a receiver refuses (`core.retry.is_refusal`) says nothing of how it does: it neither counts nor is redriven.
- After `dead_before_hold` deliveries in a row became dead letters the receiver is held: first attempts wait. Where
  nothing dies for a day (`core.retry.STANDARD`), failed first attempts count for them.
- While it is held one attempt every `probe_every_s` is its probe. It starts no clock, and leaves what failed as it was.
- The probe is the oldest delivery that waits; after probes that were refused in a row, the next oldest behind as many.
- Any delivery that arrives ends the hold, if there is one, and has the dead letters redriven, however few they are.
- A dead letter is redriven by itself for `redrive_within_s` after it first died; one that dies again, not before it has
  rested as long as it had been dead: so a body that a receiver cannot take is tried a dozen times a day.
- Redriven deliveries are claimed at most `redrive_per_s` a second, in even steps: time that passes unused buys none.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from webhooks.core.retry import Decision, Delivered, GiveUp, Leave, RetryAt

_STEPS_PER_S = 10  # above it a rate is kept by several deliveries a step: a claim is a transaction


@dataclass(frozen=True, slots=True)
class Rule:
    """When receivers are held and probed. The defaults are those of docs/labs.md."""

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

    def redrive_after(self, first_died_at: datetime, now: datetime) -> datetime:
        """Return from when on what first died at `first_died_at`, and again `now`, is redriven by itself."""
        return now + max(timedelta(0), now - first_died_at)


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one receiver."""

    dead_in_row: int = 0
    probe_at: datetime | None = None
    """When the next probe is due; None: the receiver is not held."""
    owes_redrive: bool = False
    """Whether a delivery became a dead letter, and was not refused, since the last that arrived."""
    redrive_at: datetime | None = None
    """From when on dead letters are to be redriven; None: none are, before one dies and another arrives."""
    refused_in_row: int = 0
    """How many of the last probes the receiver refused: as many of the oldest deliveries are passed over."""


def after(health: Health, decision: Decision, now: datetime, rule: Rule) -> Health:
    """Return what is known once a delivery's attempt was decided at `now`; a retry or a release changes nothing."""
    match decision:
        case Delivered():
            return _arrived(health, now, rule)
        case GiveUp(refused=False) | RetryAt(counts=True):
            dead_in_row = health.dead_in_row + 1
            probe_at = health.probe_at
            if probe_at is None and dead_in_row >= rule.dead_before_hold:
                probe_at = rule.next_probe(now)
            owes = health.owes_redrive or isinstance(decision, GiveUp)
            return replace(health, dead_in_row=dead_in_row, probe_at=probe_at, owes_redrive=owes)
        case Leave(refused):
            return replace(health, refused_in_row=health.refused_in_row + 1 if refused else 0)
        case _:
            return health


def _arrived(health: Health, now: datetime, rule: Rule) -> Health:
    back = replace(health, dead_in_row=0, probe_at=None, refused_in_row=0, owes_redrive=False)
    return replace(back, redrive_at=now) if health.owes_redrive and rule.redrives else back
