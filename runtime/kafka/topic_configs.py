"""What each topic keeps and for how long (contract 4), as Kafka's own settings by the topic's name."""

from collections.abc import Mapping
from datetime import timedelta

from schemas import topics as names


def _ms(time: timedelta) -> str:
    return str(time // timedelta(milliseconds=1))


# By the broker, with what every client can read: Python's has no other codec without a further package.
_PACKED = {"compression.type": "gzip"}

# Proxies read these from their beginning at start, so what is superseded goes within minutes.
_SMALL = {
    **_PACKED,
    "segment.ms": _ms(timedelta(minutes=5)),
    "segment.bytes": str(32 * 1024 * 1024),
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": _ms(timedelta(minutes=5)),
}
_KEPT = {**_PACKED, "cleanup.policy": "delete", "retention.ms": _ms(timedelta(days=35))}
_TOLD = {
    "cleanup.policy": "compact,delete",
    "retention.ms": _ms(timedelta(hours=48)),
    "min.compaction.lag.ms": _ms(timedelta(minutes=2)),  # a lane's owner reads what another wrote late
}
# Void two seconds after it was heard, and read from its end.
_BRIEF = {
    "cleanup.policy": "delete",
    "retention.ms": _ms(timedelta(minutes=10)),
    "segment.ms": _ms(timedelta(minutes=5)),
}

CONFIGS: Mapping[str, Mapping[str, str]] = {
    names.USAGE_EVENTS: _KEPT,
    names.USAGE_UNREADABLE: _KEPT,
    names.GATEWAY_REQUESTS: _KEPT | {"retention.ms": _ms(timedelta(days=1)), "segment.ms": _ms(timedelta(hours=1))},
    names.GATEWAY_STATUS: _KEPT,
    names.USAGE_DAILY: {
        **_PACKED,
        "cleanup.policy": "compact,delete",
        "retention.ms": _ms(timedelta(days=400)),
        "segment.ms": _ms(timedelta(hours=1)),
        "max.compaction.lag.ms": _ms(timedelta(hours=1)),
    },
    names.LIMITS_DECISIONS: _SMALL | _TOLD,
    names.LIMITS_IN_FLIGHT: _BRIEF,
    # A tombstone carries its version in a header: as long as it is there, no older record can come back to life.
    names.GATEWAY_CONFIG: _SMALL | {"cleanup.policy": "compact", "delete.retention.ms": _ms(timedelta(days=7))},
}
