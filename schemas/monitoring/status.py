"""What a process tells of itself every ten seconds, and of each minute that has ended (contract 6)."""

from enum import StrEnum

from pydantic import Field

from schemas.base import InternalRecord, Timestamp

WHOLE_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds, inclusive, of the histograms of whole calls and of first bytes, in seconds."""
OWN_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)
"""The same of what the gateway itself added."""
OUTCOMES = ("complete", "client_disconnected", "upstream_error", "gateway_interrupted", "failed", "refused")
"""Those of usage events; `failed`: the upstream gave no 2xx; `refused`: none was called."""

MOST_CALLS = 1001
"""Entries of `calls` of one minute at most: each with its own group and slug, and one for all others together."""
MOST_LOOPS = 256
MOST_SHOWN = 1024
"""Characters of a text at most."""


class Stage(StrEnum):
    """A stage that can lag behind the one before it. All count usage events, FEEDBACK seconds."""

    PUBLISHING = "publishing"
    """Events in a proxy's spool that Kafka has not acknowledged."""
    COUNTING = "counting"
    """Events that metering has not counted."""
    INTAKE = "intake"
    """Events that are in no delivery yet."""
    FEEDBACK = "feedback"
    """Age in seconds of the oldest event of a proxy that no decision counts yet."""
    DELIVERY = "delivery"
    """Seconds that the oldest delivery has been due whose attempt may begin."""


SECONDS = frozenset({Stage.FEEDBACK, Stage.DELIVERY})
"""The stages whose lag is in seconds: of several processes the greatest holds; events add up."""


class LatencyCounts(InternalRecord):
    """How long some calls took: how many fell into each bucket alone, the last above every bound, and their sum."""

    counts: tuple[int, ...] = Field(max_length=32)
    sum_s: float


class CallCounts(InternalRecord):
    """The calls of one group and slug that ended in one minute. Not money: that is the ledger's."""

    workspace_id: str = Field(max_length=26)
    """Empty where no key was known; `other` where the process knew too many groups and slugs."""
    group_id: str = Field(max_length=26)
    slug: str = Field(max_length=255)
    outcomes: dict[str, int] = Field(max_length=len(OUTCOMES))
    """How many calls had each of OUTCOMES; those that none had are absent."""
    whole: LatencyCounts
    """From admission to the client's last byte, by WHOLE_S."""
    first_byte: LatencyCounts
    """From admission to the upstream's first byte, by WHOLE_S."""
    own: LatencyCounts
    """What the gateway itself took, by OWN_S."""


class StatusMinute(InternalRecord):
    """What one process saw in a minute that has ended."""

    start: Timestamp
    lags: dict[Stage, float]
    """The greatest lag of each stage that the process is part of."""
    calls: tuple[CallCounts, ...] = Field(default=(), max_length=MOST_CALLS)


class LoopStatus(InternalRecord):
    """One background loop, as it was heard last."""

    name: str = Field(max_length=255)
    did: int
    """What it has done since it began, in its own units."""
    overdue_s: float
    """For how long it should have been heard again; 0: it rests or works as announced."""
    waits_for: str = Field(max_length=MOST_SHOWN)
    is_still: bool


class ProcessStatus(InternalRecord):
    """One process, every ten seconds; with the first record after a minute's end that minute."""

    process: str = Field(max_length=26)
    """A ULID of the process's start: a process that is started again is another one."""
    role: str = Field(max_length=32)
    host: str = Field(max_length=255)
    pid: int
    version: str = Field(max_length=64)
    started_at: Timestamp
    at: Timestamp
    problem: str | None = Field(default=None, max_length=MOST_SHOWN)
    """Why no traffic may come, as `/readyz` says; None: it may."""
    loops: tuple[LoopStatus, ...] = Field(default=(), max_length=MOST_LOOPS)
    lags: dict[Stage, float] = Field(default_factory=dict)
    minute: StatusMinute | None = None
