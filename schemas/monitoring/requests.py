"""What became of a request that was refused or failed (contract 2.5); no prompt and no answer."""

from enum import StrEnum

from pydantic import Field

from schemas.base import InternalRecord, Timestamp
from schemas.usage import RouteName


class RequestEnd(StrEnum):
    """Who ended a request that was not complete."""

    REFUSED = "refused"
    """The gateway, before any upstream was called."""
    FAILED = "failed"
    """The upstream, the client or the gateway, while it was under way."""


class RequestRecord(InternalRecord):
    """One request that was refused or failed."""

    request_id: str = Field(max_length=36)
    at: Timestamp
    """When the gateway answered or admitted it: the millisecond of its id."""
    ended: RequestEnd
    status: int = Field(ge=0, le=599)
    """The HTTP status of the answer; 0: the client left before one began."""
    reason: str = Field(max_length=64)
    """The error's code, or else its type; of an answer of the upstream's own ``upstream_status``."""
    detail: str | None = Field(default=None, max_length=1024)
    """What the answer said of it; of a body that is wrong the field's name alone."""
    workspace_id: str | None = None
    """None: no key was known, or it was refused with 401. Then the request is the operator's to find."""
    group_id: str | None = None
    api_key_prefix: str | None = None
    model_slug: str | None = Field(default=None, max_length=255)
    route: RouteName | None = None
    upstream: str | None = Field(default=None, max_length=255)
    """The host that was called."""
    by_operator: bool = False
    """Whether the operator's settings name it, so that it is none of the lab's business."""
    latency_ms: int = Field(default=0, ge=0)
    first_byte_ms: int | None = Field(default=None, ge=0)
    """To the upstream's first byte."""
    is_billed: bool = False
    """Whether it has a usage event, which may reach the ledger later than this record is read."""
    instance: str = Field(max_length=64)
    """The spool of the proxy that it came to."""
