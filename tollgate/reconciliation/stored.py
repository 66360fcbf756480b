"""What the database holds of the accounts: sums by workspace and day, the usage events to be paired (contract 4)."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, true
from ulid import ULID

from control.store import corrections
from metering.store import events
from metering.store.events import Gap, LedgerTally
from tollgate.reconciliation.accounts import AccountSums, Figures, Period, WorkspaceDay
from tollgate.reconciliation.upstream_account import Event, Pairing
from webhooks.core.deliveries import Status
from webhooks.store import deliveries as webhooks_store

_ROWS = 1000


def by_place(tallies: Iterable[LedgerTally]) -> dict[WorkspaceDay, Figures]:
    """Return sums by the workspace and day they are of."""
    return {
        (tally.workspace_id, tally.day): Figures(*(getattr(tally, name) for name in Figures._fields))
        for tally in tallies
    }


def instances(connection: Connection, period: Period) -> set[str]:
    """Return every producer instance that has events on these days."""
    return events.instances(connection, period.first, period.last)


def usage_events(connection: Connection, period: Period, which: ColumnElement[bool] | None = None) -> Iterator[Event]:
    """Stream the ledger's usage events, or `which` of them.

    A day more at both ends: a request may end on another day than it began.
    """
    wanted = events.usage(*_with_neighbours(period), true() if which is None else which, *Event._fields)
    for row in connection.execute(wanted, execution_options={"yield_per": _ROWS}):
        yield Event._make(row)


def request_ids(connection: Connection, period: Period, which: ColumnElement[bool]) -> list[str]:
    """Return the request ids of `which` of the ledger's rows, those of today too."""
    first, last = _with_neighbours(period)
    return events.request_ids(connection, first, max(last, period.today + timedelta(days=1)), which)


def deliveries(
    connection: Connection, period: Period, behind: ColumnElement[bool] | None = None
) -> Mapping[WorkspaceDay, Mapping[Status, AccountSums]]:
    """Sum the deliveries' events, without those of the ledger's rows that lie `behind` the cut."""
    first = max(period.first, period.whole_from)
    parts: list[tuple[int, Select[Any] | None]] = [(1, None)]
    if behind is not None:
        parts.append((-1, events.keys(first, period.last, behind)))
    found: dict[WorkspaceDay, dict[Status, AccountSums]] = defaultdict(lambda: dict.fromkeys(Status, AccountSums()))
    for sign, only in parts:
        for tally in webhooks_store.tallies(connection, first, period.last, only):
            sums = found[tally.workspace_id, tally.day]
            own = AccountSums(tally.events, tally.input_tokens, tally.output_tokens)
            sums[tally.status] = sums[tally.status].plus(own, sign)
    return found


def gaps(
    connection: Connection, period: Period, ends: Mapping[str, int], looked_to: Mapping[str, int]
) -> tuple[Gap, ...]:
    """Return the gaps in the ledger's numbers, of each instance of `looked_to` up to its end there, inclusive.

    `ends` says up to which number each instance is known to be counted; what is missing behind its highest number in
    the ledger counts into that one's day, and into every period that reaches to today. Numbers that may be past the
    ledger's retention are no gap.
    """
    if period.last < period.today:
        last_days = events.last_days(connection, ends)
        ends = {
            instance: end
            for instance, end in ends.items()
            if (day := last_days.get(instance) or _minted(instance)) and period.first <= day <= period.last
        }
    found = events.gaps(connection, period.first, period.last, ends)
    return tuple(
        Gap(gap.instance, gap.first, min(gap.last, looked_to.get(gap.instance, gap.last)))
        for gap in found
        if gap.first <= looked_to.get(gap.instance, gap.first)
        and not (gap.first == 1 and _older(gap.instance, period.kept_from))
    )


def apply_corrections(connection: Connection, pairing: Pairing) -> None:
    """Let those pairs count as equal that are so with their corrections."""
    pairing.apply_corrections(lambda keys: corrections.corrected(connection, keys))


def _with_neighbours(period: Period) -> tuple[date, date]:
    day = timedelta(days=1)
    return period.first - day, period.last + day


def _older(instance: str, day: date) -> bool:
    """Tell whether an instance was minted before `day`, so that its first numbers may be past retention."""
    minted = _minted(instance)
    return minted is not None and minted < day


def _minted(instance: str) -> date | None:
    try:
        return ULID.from_str(instance).datetime.date()
    except ValueError:
        return None
