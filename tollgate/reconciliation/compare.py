"""Lays what was counted beside what was published, summed up, delivered, and served by the upstream (contract 4)."""

import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from metering.store.events import Gap
from proxy.spool.file import SpoolFileError
from tollgate.reconciliation.accounts import (
    AccountLine,
    AccountSums,
    Figures,
    Period,
    Report,
    TopicFigures,
    WorkspaceDay,
)
from tollgate.reconciliation.upstream_account import Comparison, Pairing
from webhooks.core.deliveries import Status

WAIT_S = 60.0
"""How long metering and intake have to pass the cut."""

POLL_S = 0.1


class ReconcileError(Exception):
    """Nothing could be compared; the message is one line that says why."""


class ReaderPositions(NamedTuple):
    """How far metering and intake are."""

    served: bool
    """Whether they run."""
    passed: bool
    """Whether both have passed the cut."""


@dataclass(slots=True)
class View:
    """Every account as it was at one moment."""

    ledger: Mapping[WorkspaceDay, Figures] = field(default_factory=dict)
    daily: Mapping[WorkspaceDay, Figures] = field(default_factory=dict)
    deliveries: Mapping[WorkspaceDay, Mapping[Status, AccountSums]] = field(default_factory=dict)
    unpublished: Mapping[WorkspaceDay, Figures] = field(default_factory=dict)
    untaken: Mapping[WorkspaceDay, AccountSums] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    waiting: int = 0
    in_flight: int = 0
    topic: TopicFigures | None = None


class Accounts(Protocol):
    """Where the accounts come from. One object serves one reconciliation. Each call may raise ReconcileError."""

    def take_cut(self) -> None:
        """Note how far events are compared."""

    def progress(self) -> ReaderPositions:
        """Say whether metering and intake have passed the cut."""

    def view(self, pairing: Pairing | None, progress: ReaderPositions) -> View:
        """Return the accounts, and hand the usage events to `pairing`."""

    def forgive(self, pairing: Pairing) -> None:
        """Let `pairing` leave those of the upstream's lines to the next run whose requests are under way."""

    def apply_corrections(self, pairing: Pairing) -> None:
        """Let those pairs count as equal that are so with their corrections."""


class Reconciliation:
    """One run."""

    def __init__(
        self,
        accounts: Accounts,
        period: Period,
        *,
        wait_s: float = WAIT_S,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._accounts = accounts
        self._period = period
        self._wait_s = wait_s
        self._pause = pause

    def run(self, account: Path | None = None) -> Report:
        """Compare, the upstream's `account` too where it is given.

        Raise ReconcileError, AccountError and InstallationError.
        """
        try:
            self._accounts.take_cut()
            progress = self._await()
            if account is None:
                return self._report(self._accounts.view(None, progress), progress, None)
            with Pairing(self._period.first, self._period.last) as pairing:
                pairing.check(account)
                view = self._accounts.view(pairing, progress)
                return self._report(view, progress, self._pair(pairing, account))
        except (sqlite3.Error, SpoolFileError) as error:
            raise ReconcileError(f"a spool or a temporary file cannot be used: {error}") from None

    def _await(self) -> ReaderPositions:
        """Wait until both readers have passed the cut; where nobody serves, they never will."""
        until = time.monotonic() + self._wait_s
        while True:
            progress = self._accounts.progress()
            if progress.passed or not progress.served or time.monotonic() >= until:
                return progress
            self._pause(POLL_S)

    def _pair(self, pairing: Pairing, account: Path) -> Comparison:
        """Compare with the account.

        It is read after the events: so it has a line of each of them, and a line without an event is of a request that
        is still under way, or lost.
        """
        pairing.read(account)
        self._accounts.forgive(pairing)
        self._accounts.apply_corrections(pairing)
        return pairing.compare()

    def _report(self, view: View, progress: ReaderPositions, upstream: Comparison | None) -> Report:
        topic = {} if view.topic is None else view.topic.figures
        places = {*view.ledger, *view.daily, *view.deliveries, *view.unpublished, *view.untaken, *topic}
        return Report(
            self._period,
            served=progress.served,
            passed=progress.passed,
            waiting=view.waiting,
            in_flight=view.in_flight,
            lines=tuple(self._line(place, view) for place in sorted(places)),
            gaps=view.gaps,
            upstream=upstream,
            topic=view.topic,
        )

    def _line(self, place: WorkspaceDay, view: View) -> AccountLine:
        day = place[1]
        ledger = view.ledger.get(place, Figures())
        nothing = dict.fromkeys(Status, AccountSums())
        return AccountLine(
            *place,
            unpublished=view.unpublished.get(place, Figures()),
            ledger=ledger,
            daily=view.daily.get(place, Figures()),
            deliveries=view.deliveries.get(place, nothing) if day >= self._period.whole_from else None,
            untaken=view.untaken.get(place, AccountSums()),
            topic=None if view.topic is None else view.topic.of(place, ledger, self._period.whole_from),
        )
