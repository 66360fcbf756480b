"""Pairs the upstream's own account with the usage events of the same requests (contract 4: `reconcile --upstream`).

The account and the events go to a temporary SQLite file, which pairs them.

An account's line names its request by the `x-request-id` that the upstream call carried. Lines of one request are
summed. A line whose request is not among the events is missing there, unless the caller knows it from elsewhere
(`forgive`): still in flight, or recorded behind the cut. So no clock of the upstream is compared with one of ours but
for the day of a line that pairs with nothing.
"""

import codecs
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import msgspec

from schemas.usage import Outcome, Tokens, UsageSource

_log = logging.getLogger(__name__)

LISTED = 1000
"""How many requests of one kind are named; the others are only counted."""

_CHUNK = 500
_SCHEMA = """
PRAGMA journal_mode=OFF;
PRAGMA synchronous=OFF;
CREATE TABLE line (request_id TEXT PRIMARY KEY, day TEXT, input INTEGER, output INTEGER, forgiven INTEGER DEFAULT 0);
CREATE TABLE event (request_id TEXT PRIMARY KEY, key TEXT, workspace_id TEXT, day TEXT, input INTEGER, output INTEGER,
    source TEXT, outcome TEXT, inside INTEGER, apart INTEGER, settled INTEGER DEFAULT 0);
"""
_ADD_LINE = """
INSERT INTO line (request_id, day, input, output) VALUES (?, ?, ?, ?) ON CONFLICT (request_id)
DO UPDATE SET input = input + excluded.input, output = output + excluded.output, day = max(day, excluded.day)
"""
_ADD_EVENT = """
INSERT INTO event (request_id, key, workspace_id, day, input, output, source, outcome, inside, apart)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_BOTH = "FROM event LEFT JOIN line USING (request_id) WHERE inside AND"
_DIFFERENT = "line.day IS NOT NULL AND (event.input, event.output) <> (line.input, line.output)"
_KINDS = {
    "missing_in_ledger": """
        FROM line LEFT JOIN event USING (request_id)
        WHERE event.key IS NULL AND NOT forgiven AND line.day BETWEEN :from_day AND :to_day""",
    "missing_at_upstream": f"{_BOTH} line.day IS NULL AND NOT apart",
    "different_counts": f"{_BOTH} {_DIFFERENT} AND NOT apart AND NOT settled",
    "apart": f"{_BOTH} apart",
}
_COMPLETE = f"outcome = '{Outcome.COMPLETE.value}'"
_SUMS = "SELECT count(*), total(event.input), total(event.output), total(line.input), total(line.output)"
_COLUMNS = """request_id, event.key, event.workspace_id, coalesce(event.day, line.day), event.outcome, event.source,
    event.input, event.output, line.input, line.output"""


class AccountError(Exception):
    """The account cannot be read; the message is one line that says where."""


Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Line(msgspec.Struct):
    request_id: str | None
    input_tokens: Count
    output_tokens: Count
    completed_at: Annotated[datetime, msgspec.Meta(tz=True)]


class MatchedRequest(NamedTuple):
    """One request as both sides know it; None where a side does not."""

    request_id: str
    idempotency_key: str | None
    workspace_id: str | None
    day: str
    """Of its admission; of its completion where only the upstream knows it."""
    outcome: str | None
    usage_source: str | None
    input_tokens: int | None
    output_tokens: int | None
    upstream_input_tokens: int | None
    upstream_output_tokens: int | None


@dataclass(frozen=True, slots=True)
class Listing:
    """How many requests there are of a kind, and the first of them."""

    count: int
    requests: tuple[MatchedRequest, ...]


class BothSides(NamedTuple):
    """Requests, and their tokens as both sides know them."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    upstream_input_tokens: int = 0
    upstream_output_tokens: int = 0


NO_TOKENS = BothSides()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What pairing found. All but `apart`, its sums and `agreeing` are differences."""

    agreeing: int
    later: int
    """Lines whose requests are in flight or recorded behind the cut: the next run compares them."""
    missing_in_ledger: Listing
    missing_at_upstream: Listing
    different_counts: Listing
    apart: Listing
    """Events that did not end as `complete`, or whose counts are estimated."""
    apart_sums: BothSides = NO_TOKENS
    estimated: BothSides = NO_TOKENS
    """Those of them whose answers were complete, so that the upstream could have counted, and no correction mended."""
    tokens: int = 0
    """Input and output of all events that are compared or apart."""

    @property
    def estimated_share(self) -> float:
        """Which part of the tokens is estimated although the answers were complete: 0 to 1."""
        return (self.estimated.input_tokens + self.estimated.output_tokens) / self.tokens if self.tokens else 0.0

    @property
    def agrees(self) -> bool:
        """Whether there is no difference."""
        return not (self.missing_in_ledger.count or self.missing_at_upstream.count or self.different_counts.count)


class Event(NamedTuple):
    """What is paired of a usage event."""

    request_id: str
    idempotency_key: str
    workspace_id: str
    day: date
    input_tokens: int
    output_tokens: int
    usage_source: str
    outcome: str


class Pairing:
    """One comparison of the days from `from_day` to `to_day`, both inclusive. Close it after use."""

    def __init__(self, from_day: date, to_day: date) -> None:
        self._days = {"from_day": from_day.isoformat(), "to_day": to_day.isoformat()}
        self._scratch = sqlite3.connect("", isolation_level=None)  # a file without a name, gone when it is closed
        self._scratch.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.close()

    @staticmethod
    def check(path: Path) -> None:
        """Raise AccountError where there is no such file, before anything long begins."""
        try:
            path.open("rb").close()
        except OSError as error:
            raise AccountError(f"{path}: {error.strerror}") from None

    def read(self, path: Path) -> None:
        """Take the account's lines. One that cannot be read and has no end is named, and left out: it is being written.

        Raise AccountError where the file or a line cannot be read.
        """
        try:
            with path.open("rb") as lines:
                self._add(_ADD_LINE, _read(path, lines))
        except OSError as error:
            raise AccountError(f"{path}: {error.strerror}") from None

    def forget_events(self) -> None:
        """Begin anew with the events; the lines stay."""
        self._scratch.execute("DELETE FROM event")

    def add(self, events: Iterable[Event]) -> None:
        """Take events. Those of other days are there to be paired with, and are not compared."""
        self._add(_ADD_EVENT, map(self._row, events))

    def forgive(self, request_ids: Iterable[str]) -> None:
        """Take lines that pair with no event for later: their requests are known to be under way."""
        self._add("UPDATE line SET forgiven = 1 WHERE request_id = ?", ((request_id,) for request_id in request_ids))

    def lacking(self, limit: int) -> list[str]:
        """Return at most `limit` requests whose lines pair with no event and are not forgiven."""
        found = self._scratch.execute(f"SELECT request_id {_KINDS['missing_in_ledger']} LIMIT {limit:d}", self._days)
        return [request_id for (request_id,) in found]

    def apply_corrections(self, corrected: Callable[[list[str]], Mapping[str, Tokens]]) -> None:
        """Let those count as equal that are so with their corrections; `corrected` sums them by idempotency key."""
        columns = "SELECT key, line.input - event.input, line.output - event.output"
        cursor = self._scratch.execute(f"{columns} {_BOTH} {_DIFFERENT} AND (NOT apart OR {_COMPLETE}) AND NOT settled")
        settled = []
        while some := cursor.fetchmany(_CHUNK):
            sums = corrected([key for key, _, _ in some])
            wanted = {key: Tokens(input_tokens=prompt, output_tokens=completion) for key, prompt, completion in some}
            settled += [(key,) for key in sums if sums[key] == wanted[key]]
        self._add("UPDATE event SET settled = 1 WHERE key = ?", settled)

    def compare(self) -> Comparison:
        """Return what differs, what is apart, and how much agrees."""
        found = {kind: self._listing(query) for kind, query in _KINDS.items()}
        agreeing = self._count(f"{_BOTH} line.day IS NOT NULL AND NOT apart") - found["different_counts"].count
        later = self._count("FROM line LEFT JOIN event USING (request_id) WHERE event.key IS NULL AND forgiven")
        apart, estimated = f"{_BOTH} apart", f"{_BOTH} apart AND {_COMPLETE} AND NOT settled"
        every = self._sums("FROM event LEFT JOIN line USING (request_id) WHERE inside")
        sums = self._sums(apart), self._sums(estimated), every.input_tokens + every.output_tokens
        return Comparison(agreeing, later, **found, apart_sums=sums[0], estimated=sums[1], tokens=sums[2])

    def _row(self, event: Event) -> tuple[Any, ...]:
        day = event.day.isoformat()
        inside = self._days["from_day"] <= day <= self._days["to_day"]
        apart = event.outcome != Outcome.COMPLETE.value or event.usage_source != UsageSource.PROVIDER.value
        return (*event[:3], day, *event[4:], inside, apart)

    def _add(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        self._scratch.execute("BEGIN")
        self._scratch.executemany(statement, rows)
        self._scratch.execute("COMMIT")

    def _count(self, query: str) -> int:
        count: int = self._scratch.execute(f"SELECT count(*) {query}", self._days).fetchone()[0]
        return count

    def _sums(self, query: str) -> BothSides:
        return BothSides(*map(int, self._scratch.execute(f"{_SUMS} {query}").fetchone()))

    def _listing(self, query: str) -> Listing:
        found = self._scratch.execute(f"SELECT {_COLUMNS} {query} ORDER BY 4, 1 LIMIT {LISTED}", self._days)
        return Listing(self._count(query), tuple(MatchedRequest(*row) for row in found))


def _read(path: Path, lines: Iterable[bytes]) -> Iterator[tuple[str, str, int, int]]:
    decoder = msgspec.json.Decoder(_Line)
    for number, given in enumerate(lines, 1):
        line = (given.removeprefix(codecs.BOM_UTF8) if number == 1 else given).strip()
        if not line:
            continue
        try:
            entry = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if not given.endswith(b"\n"):
                text = "%s, line %d has no end and cannot be read: left out, as still being written"
                _log.warning(text, path, number)
                return
            raise AccountError(f"{path}, line {number}: {error}") from None
        request_id = f"none (line {number})" if entry.request_id is None else entry.request_id
        day = entry.completed_at.astimezone(UTC).date().isoformat()
        yield request_id, day, entry.input_tokens, entry.output_tokens
