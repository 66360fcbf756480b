"""The records of ``gateway.config.v1``: a change of the configuration, or the relay's heartbeat (design 3.8).

Never decodes a kind that the reader did not ask for, nor one that this version does not know.

The key of a change is ``kind/id``. A tombstone has no value: its kind, id and version are headers. When compaction has
removed it (`delete.retention.ms`, 7 days), a reader that starts knows of the thing no more than if it never was.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from runtime import config_log
from runtime.feed import FeedRecord
from runtime.kafka import Record, cloud_event
from schemas.config import ConfigChange, ConfigKind
from schemas.topics import GATEWAY_CONFIG

HEARTBEAT_KEY = b"heartbeat"

EVERY_KIND = frozenset(ConfigKind)

_SOURCE = "tollgate/control"
_CHANGE_TYPE = f"tollgate.{GATEWAY_CONFIG}"
_HEARTBEAT_TYPE = "tollgate.gateway.config.heartbeat.v1"

OnUnreadable = Callable[[FeedRecord, Exception], None]


def encode(version: int, kind: str, id_: str, record: Mapping[str, Any] | None, at: datetime) -> Record:
    """Give the record of a change; `record` is the JSON of its state, None where the thing is gone.

    Takes any kind, so that a relay passes on what a newer version of control wrote.
    """
    name = f"{kind}/{id_}"
    headers = cloud_event(_CHANGE_TYPE, f"{name}/{version}", _SOURCE, at)
    if record is None:
        end = (("kind", kind.encode()), ("id", id_.encode()), ("version", b"%d" % version))
        return Record(name.encode(), None, headers + end)
    body = {"version": version, "kind": kind, "id": id_, "record": record}
    return Record(name.encode(), json.dumps(body, separators=(",", ":")).encode(), headers)


def of(change: ConfigChange, at: datetime) -> Record:
    """Give the record of a change that was decoded."""
    record = None if change.record is None else change.record.model_dump(mode="json", by_alias=True)
    return encode(change.version, change.kind.value, change.id, record, at)


def heartbeat(version: int, at: datetime) -> Record:
    """Give the sign that the relay is alive and has sent everything up to `version`."""
    headers = cloud_event(_HEARTBEAT_TYPE, f"heartbeat/{version}", _SOURCE, at)
    return Record(HEARTBEAT_KEY, b'{"version":%d}' % version, headers)


def decode(
    records: Sequence[FeedRecord], kinds: Collection[ConfigKind], on_unreadable: OnUnreadable
) -> tuple[list[ConfigChange], int]:
    """Give the changes of these kinds in their order, and the newest version that was seen, 0 where none was."""
    wanted = {kind.value.encode(): kind for kind in kinds}
    changes = []
    newest = 0
    for record in records:
        kind = wanted.get(record.key.partition(b"/")[0])
        try:
            if kind is not None:
                change = _change(kind, record)
                changes.append(change)
                newest = max(newest, change.version)
            elif record.key == HEARTBEAT_KEY:
                newest = max(newest, int(json.loads(record.value or b"")["version"]))
        except (ValueError, KeyError, TypeError) as error:
            on_unreadable(record, error)
    return changes, newest


def _change(kind: ConfigKind, record: FeedRecord) -> ConfigChange:
    if record.value is not None:
        return config_log.change_of(kind).model_validate_json(record.value)
    headers = dict(record.headers)
    return ConfigChange(version=int(headers["version"]), kind=kind, id=headers["id"].decode(), record=None)
