"""The records of ``gateway.config.v1``: a change of the configuration, or the relay's heartbeat (counting 8).

The key of a change is ``kind/id``. A tombstone has no value: its kind, id and version are headers. When compaction has
removed it (`delete.retention.ms`, 7 days), a reader that starts knows of the thing no more than if it never was.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from runtime.config import log as config_log
from runtime.config import newer
from runtime.kafka.feed import FeedRecord
from runtime.kafka.writer import Headers, KafkaRecord, cloud_event
from schemas import base
from schemas.config import ConfigChange, ConfigKind
from schemas.topics import GATEWAY_CONFIG

HEARTBEAT_KEY = b"heartbeat"

EVERY_KIND = frozenset(ConfigKind)
_KNOWN = frozenset(kind.value.encode() for kind in ConfigKind)

_SOURCE = "tollgate/control"
_CHANGE_TYPE = f"tollgate.{GATEWAY_CONFIG}"
_HEARTBEAT_TYPE = "tollgate.gateway.config.heartbeat.v1"

OnUnreadable = Callable[[FeedRecord, Exception], None]


class UnknownKindError(Exception):
    """A change is of a kind that this version does not know: a newer one has it."""


def encode(version: int, kind: str, id_: str, record: Mapping[str, Any] | None, at: datetime) -> KafkaRecord:
    """Return the record of a change committed at `at`; `record` is its state as JSON, None where the thing is gone.

    Takes any kind, so that a relay passes on what a newer version of control wrote.
    """
    headers = cloud_event(_CHANGE_TYPE, f"{kind}/{id_}/{version}", _SOURCE, at)
    return _record(headers, version, kind, id_, record, base.rfc3339(at))


def of(change: ConfigChange, at: datetime) -> KafkaRecord:
    """Return the record of what holds at `at`; unlike a change's, it does not tell when it was committed."""
    kind, record = change.kind.value, change.record
    headers = cloud_event(_CHANGE_TYPE, f"{kind}/{change.id}/{change.version}", _SOURCE, at)
    state = None if record is None else record.model_dump(mode="json", by_alias=True)
    return _record(headers, change.version, kind, change.id, state, None)


def heartbeat(version: int, at: datetime) -> KafkaRecord:
    """Return the sign that the relay is alive and has sent everything up to `version`."""
    headers = cloud_event(_HEARTBEAT_TYPE, f"heartbeat/{version}", _SOURCE, at)
    return KafkaRecord(HEARTBEAT_KEY, b'{"version":%d}' % version, headers)


def decode(
    records: Sequence[FeedRecord], kinds: Collection[ConfigKind], on_unreadable: OnUnreadable
) -> tuple[list[ConfigChange], int]:
    """Return the changes of these kinds in their order, and the newest version that was seen, 0 where none was.

    `on_unreadable` gets an UnknownKindError of a change whose kind only a newer version has, and a LeftOutError of one
    that is returned without a part that this version does not know.
    """
    wanted = {kind.value.encode(): kind for kind in kinds}
    changes = []
    newest = 0
    for record in records:
        kind = wanted.get(record.key.partition(b"/")[0])
        try:
            if kind is not None:
                change = _change(kind, record, on_unreadable)
                changes.append(change)
                newest = max(newest, change.version)
            elif record.key == HEARTBEAT_KEY:
                newest = max(newest, _heartbeat(record))
            elif record.key.partition(b"/")[0] not in _KNOWN:
                on_unreadable(record, UnknownKindError())
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one record must not stop every process
            on_unreadable(record, error)
    return changes, newest


def heartbeats(records: Sequence[FeedRecord]) -> list[int]:
    """Return the versions of the relay's heartbeats among `records`; one that cannot be read is left out."""
    versions = []
    for record in records:
        if record.key == HEARTBEAT_KEY:
            with suppress(ValueError, KeyError, TypeError):
                versions.append(_heartbeat(record))
    return versions


def _heartbeat(record: FeedRecord) -> int:
    return _version(json.loads(record.value or b"")["version"])


def _record(  # noqa: PLR0917 - a change's fields, in their order
    headers: Headers, version: int, kind: str, id_: str, state: Mapping[str, Any] | None, at: str | None
) -> KafkaRecord:
    key = f"{kind}/{id_}".encode()
    if state is None:
        end = {"kind": kind, "id": id_, "version": str(version)} | ({} if at is None else {"at": at})
        return KafkaRecord(key, None, [*headers, *((name, value.encode()) for name, value in end.items())])
    body = {"version": version, "kind": kind, "id": id_, "record": state, "at": at}
    return KafkaRecord(key, json.dumps(body, separators=(",", ":")).encode(), headers)


def _change(kind: ConfigKind, record: FeedRecord, on_unreadable: OnUnreadable) -> ConfigChange:
    if record.value is not None:
        model = config_log.change_of(kind)
        try:
            return model.model_validate_json(record.value)
        except ValidationError as error:
            change, left_out = newer.read(model, json.loads(record.value), error)
            on_unreadable(record, left_out)
            return change
    end = {name: value.decode() for name, value in record.headers if name in {"id", "version", "at"}}
    at = datetime.fromisoformat(end["at"]) if "at" in end else None
    return ConfigChange(version=_version(int(end["version"])), kind=kind, id=end["id"], record=None, at=at)


def _version(given: object) -> int:
    """Return a version that a counter of ours can have reached. Raise ValueError."""
    if not isinstance(given, int) or not 0 <= given < 2**63:
        raise ValueError("no such version")
    return given
