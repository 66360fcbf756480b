"""Makes a reconciliation of an installation: where its accounts come from, and one that the console asked for."""

import asyncio
import io
import threading
from collections.abc import Mapping, Sequence
from datetime import date

from rich.console import Console

from control.reconciliations import ReconcileAnswer, ReconcileRequest
from control.store.monitoring.reconciliations import Verdict
from control.store.workspaces import SqlWorkspaces
from runtime.clock import Clock
from runtime.kafka.writer import Kafka
from runtime.settings import Settings
from tollgate.installation import Installation, InstallationError
from tollgate.reconciliation import compare
from tollgate.reconciliation.accounts import Period
from tollgate.reconciliation.cluster import ClusterAccounts
from tollgate.reconciliation.compare import Accounts, ReconcileError
from tollgate.reconciliation.embedded import EmbeddedAccounts
from tollgate.reconciliation.proxies import Proxies
from tollgate.reconciliation.topic import Topic
from tollgate.reports import reconciliation as report_text

_WIDTH = 100
"""Of the text, in characters."""


def period(loaded: Settings, from_day: date, to_day: date, today: date) -> Period:
    """Return the days that are asked for, both inclusive, as the installation keeps them."""
    if loaded.kafka_bootstrap is None:
        return Period(from_day, to_day, today)
    return Period(from_day, to_day, today, ledger_days=loaded.ledger_days)


def accounts(place: Installation, period: Period, proxies: Sequence[str], ignored: Sequence[str]) -> Accounts:
    """Choose where the accounts come from. Raise ReconcileError where an address of `proxies` is none."""
    if place.settings.kafka_bootstrap is None:
        return EmbeddedAccounts(place, period)
    return ClusterAccounts(place, period, Proxies(proxies), Topic(Kafka.of(place.settings)), ignored)


def names(place: Installation) -> Mapping[str, str]:
    """Return the names of all workspaces, by id."""
    return {record.id: record.name for record in place.read(lambda connection: SqlWorkspaces(connection).every())}


class BackgroundReconcile:
    """Implements `control.reconciliations.Reconcile` over the installation that a process serves.

    It runs in a thread, which ends soon after it is cancelled: the wait for the cut does, and nothing else is long.
    """

    def __init__(self, place: Installation, clock: Clock) -> None:
        self._place = place
        self._clock = clock

    async def __call__(self, request: ReconcileRequest) -> ReconcileAnswer:
        """Compare the accounts of a day."""
        ends = threading.Event()
        try:
            return await asyncio.to_thread(self._compared, request, ends)
        finally:
            ends.set()

    def _compared(self, request: ReconcileRequest, ends: threading.Event) -> ReconcileAnswer:
        def pause(seconds: float) -> None:
            if ends.wait(seconds):
                raise ReconcileError("the process was stopped")

        day, written = request.day, io.StringIO()
        try:
            days = period(self._place.settings, day, day, self._clock().date())
            report = compare.Reconciliation(accounts(self._place, days, request.proxies, ()), days, pause=pause).run()
            report_text.show(report, names(self._place), 1.0, Console(file=written, width=_WIDTH, highlight=False))
        except (ReconcileError, InstallationError) as error:
            return ReconcileAnswer(Verdict.NOT_COMPARED, str(error))
        return ReconcileAnswer(Verdict.AGREES if report.agrees else Verdict.DIFFERS, written.getvalue())
