"""Names and keys of the topics that finance and our own processes read (contract 4)."""

from schemas.base import InternalRecord
from schemas.config import ConfigChange
from schemas.daily import DailyUsage
from schemas.decisions import Decision, InFlightUsage
from schemas.monitoring.requests import RequestRecord
from schemas.monitoring.status import ProcessStatus
from schemas.usage import UsageEvent

USAGE_EVENTS = "usage.events.v1"
USAGE_DAILY = "usage.daily.v1"
LIMITS_DECISIONS = "limits.decisions.v2"
LIMITS_DECISIONS_V1 = "limits.decisions.v1"
"""What metering of the version before writes; proxies, which are upgraded first, read it until metering is, too."""
WHOLE_KEY = b"whole"
"""The key of the record of LIMITS_DECISIONS that is no counter's: see `schemas.decisions.Whole`."""
SPREAD_KEY = "spread/"
"""What the keys of `schemas.decisions.Spread` begin with; the group's id follows."""
LIMITS_IN_FLIGHT = "limits.inflight.v1"
GATEWAY_CONFIG = "gateway.config.v1"
GATEWAY_REQUESTS = "gateway.requests.v1"
"""Requests that were refused or failed, for a day, so that they can be found."""
GATEWAY_STATUS = "gateway.status.v1"
"""What each process tells of itself, and the sums of each minute."""
USAGE_UNREADABLE = "usage.events.unreadable.v1"
"""Records of USAGE_EVENTS that could not be decoded or placed, as they came; the reason is in their headers."""

VALUES: dict[str, type[InternalRecord]] = {
    USAGE_EVENTS: UsageEvent,
    USAGE_DAILY: DailyUsage,
    LIMITS_DECISIONS: Decision,
    LIMITS_IN_FLIGHT: InFlightUsage,
    GATEWAY_CONFIG: ConfigChange,
    GATEWAY_REQUESTS: RequestRecord,
    GATEWAY_STATUS: ProcessStatus,
}
"""Topic to the contract of its values; their JSON Schemas lie in `schemas/json/`."""
