"""The configuration after a restore: what the topic holds that the database does not, and the next epoch (counting 9).

Never lets a key work again that had ended after the backup, nor goes by a topic that may lack something.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection

from control.store import published, snapshot, units
from control.unit_of_work import UnitOfWork
from runtime.config import log as config_log
from runtime.config import records as config_records
from runtime.kafka.feed import FeedRecord
from runtime.kafka.reader import LogReader
from runtime.kafka.writer import Kafka
from schemas.config import ConfigChange, ConfigKind, ConfigRecord, GroupRecord, KeyRecord, WorkspaceRecord
from schemas.config import WorkspaceState as State
from schemas.topics import GATEWAY_CONFIG

RecordId = tuple[ConfigKind, str]
"""A kind and the id of a thing of it."""


class _Known(NamedTuple):
    """A thing that has not ended."""

    digest: bytes
    """Of its record; empty where this program cannot read all of that."""
    record: ConfigRecord | None
    """Kept where it closes something to somebody: a key's end, a suspended workspace."""

    def differs(self, record: ConfigRecord) -> bool:
        """Whether it is not as `record`, as far as it can be read."""
        if self.record is not None:
            return self.record != record
        return self.digest not in {b"", _digest(record)}


@dataclass(slots=True)
class ToldConfiguration:
    """The configuration as its topic has it."""

    newest: int = 0
    """The highest version of all records."""
    is_whole: bool = False
    """Whether the relay has said there that everything was sent."""
    live: dict[RecordId, _Known] = field(default_factory=dict)

    def take(self, record: FeedRecord) -> None:
        """Take the next record; what this program cannot read is something that is there."""
        unreadable: list[Exception] = []
        changes, newest = config_records.decode(
            [record], config_records.EVERY_KIND, lambda _, error: unreadable.append(error)
        )
        self.newest = max(self.newest, newest)
        self.is_whole |= record.key == config_records.HEARTBEAT_KEY
        for change in changes:
            if change.record is None:
                self.live.pop((change.kind, change.id), None)
            else:
                known = _known(change.record)
                self.live[change.kind, change.id] = known._replace(digest=b"") if unreadable else known
        kind, _, id_ = record.key.decode(errors="replace").partition("/")
        if unreadable and not changes and kind in set(ConfigKind):
            self.live[ConfigKind(kind), id_] = _Known(b"", None)

    def lacks(self, key: KeyRecord, groups: Mapping[str, GroupRecord]) -> bool:
        """Whether a key has ended, or its group, or one above that."""
        group = groups.get(key.group_id)
        way = [key.group_id, *(group.ancestor_ids if group else ())]
        places: list[RecordId] = [(ConfigKind.KEY, key.prefix), *((ConfigKind.GROUP, one) for one in way)]
        return any(place not in self.live for place in places)


@dataclass(slots=True)
class Found:
    """What was different, by kind; each thing by its id."""

    epoch: int
    made_since: dict[str, list[str]]
    """Things that the database does not have: they end."""
    ended_since: dict[str, list[str]]
    """Things that the database still has."""
    changed_since: dict[str, list[str]]
    closed_again: list[str]
    """Keys and workspaces of the database that were closed as the topic says."""


async def read(where: Kafka) -> ToldConfiguration:
    """Read the whole topic. Raise KafkaAwayError."""
    topic = ToldConfiguration()
    await _read(where, topic.take)
    return topic


async def newest(where: Kafka) -> int:
    """Return the highest version of the topic, 0 where it holds none. Raise KafkaAwayError."""
    found = 0

    def take(record: FeedRecord) -> None:
        nonlocal found
        found = max(found, config_records.decode([record], config_records.EVERY_KIND, lambda *_: None)[1])

    await _read(where, take)
    return found


async def _read(where: Kafka, take: Callable[[FeedRecord], None]) -> None:
    async with LogReader(where, GATEWAY_CONFIG) as reader:
        async for records in reader.until(await reader.bounds()):
            for one in records:
                take(FeedRecord(one.key or b"", one.value, one.headers, one.partition, one.offset))


def bring_together(connection: Connection, topic: ToldConfiguration, now: datetime) -> Found:
    """Begin the next epoch; end what the database does not have, close what was closed. In the caller's transaction.

    The relay publishes everything when it starts. A topic that is not whole, or not newer than the database, tells
    nothing.
    """
    tells = topic.is_whole and topic.newest > config_log.current_version(connection)
    before = topic.live if tells else {}
    epoch = config_log.raise_epoch(connection, topic.newest)
    published.put(connection, published.CONFIG_END, 0)
    known, groups, changed = set[RecordId](), dict[str, GroupRecord](), list[RecordId]()
    ended: list[ConfigChange] = []
    for change in snapshot.snapshot(connection)[1]:
        place = change.kind, change.id
        known.add(place)
        record = change.record
        if isinstance(record, GroupRecord):
            groups[record.id] = record
        if not tells or record is None:
            continue
        if place not in before or (isinstance(record, KeyRecord) and topic.lacks(record, groups)):
            ended.append(change)
        elif before[place].differs(record):
            changed.append(place)
    unit = units.over(connection, now)
    closed = [*_close(unit, ended), *_close_changed(unit, [(place[1], before[place].record) for place in changed])]
    made = [place for place in before if place not in known]
    for kind, id_ in made:
        config_log.append(connection, now, kind, id_, None)
    return Found(epoch, _by_kind(made), _by_kind((one.kind, one.id) for one in ended), _by_kind(changed), closed)


def _close(unit: UnitOfWork, ended: Sequence[ConfigChange]) -> Iterator[str]:
    """Revoke the keys of what has ended."""
    for change in ended:
        key = unit.api_keys.find(change.id) if change.kind is ConfigKind.KEY else None
        if key is not None:
            unit.api_keys.revoke(key, unit.now)
            unit.journal.note(key.record.workspace_id, "api_key.revoke", change.id)
            yield change.id


def _close_changed(unit: UnitOfWork, changed: Sequence[tuple[str, ConfigRecord | None]]) -> Iterator[str]:
    """Take over that keys were disabled or end, and that workspaces were suspended."""
    for id_, record in changed:
        if isinstance(record, WorkspaceRecord):
            workspace = unit.workspaces.find(id_)
            if workspace is not None:
                unit.workspaces.replace(workspace.model_copy(update={"state": record.state}), unit.now)
                unit.journal.note(id_, "workspace.suspend", id_)
                yield id_
        elif isinstance(record, KeyRecord):
            key = unit.api_keys.find(id_)
            if key is not None:
                unit.api_keys.replace(replaced(key, record=record, disabled=record.disabled), unit.now)
                unit.journal.note(record.workspace_id, "api_key.update", id_)
                yield id_


def _known(record: ConfigRecord) -> _Known:
    closes = (isinstance(record, KeyRecord) and (record.disabled or record.expires_at is not None)) or (
        isinstance(record, WorkspaceRecord) and record.state is State.SUSPENDED
    )
    return _Known(_digest(record), record if closes else None)


def _digest(record: ConfigRecord) -> bytes:
    return hashlib.blake2b(record.model_dump_json().encode(), digest_size=16).digest()


def _by_kind(places: Sequence[RecordId] | Iterator[RecordId]) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for kind, id_ in places:
        found[kind.value].append(id_)
    return dict(found)
