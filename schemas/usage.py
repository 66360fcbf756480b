"""The usage event: what one request consumed (contract 4)."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from schemas.base import InternalRecord, Timestamp

MAX_EVENT_BYTES = 32 * 1024
"""The largest usage event as JSON; request metadata is refused long before (contract 3)."""


MOST_TOKENS = 10**9
"""The most tokens of one kind that one event may hold: far above any model, and far from overflowing a day's sum."""


MOST_COST = 2**53
"""The most that one event may cost, in millionths of a minor unit: what every JSON reader can hold."""


MOST_NUMBER = 2**63 - 1
"""The largest whole number that every store of ours takes."""


LONGEST = {
    "idempotency_key": 64,
    "request_id": 64,
    "workspace_id": 64,
    "group_id": 64,
    "external_entity_id": 255,
    "api_key_prefix": 64,
    "model_slug": 255,
    "corrects": 64,
    "reason": 4096,
    "traceparent": 55,
}
"""The most characters of each text: what a proxy writes is shorter, and what is longer has no place in an index."""


MOST_GROUPS = 16
"""The most groups that one event charges, or names on the way to its root."""


_RFC_3339 = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$"


def _as_written(value: object) -> object:
    """Refuse a time in another form than RFC 3339's: a number, or a text that other readers would not take."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, str) and re.fullmatch(_RFC_3339, value):
        return datetime.fromisoformat(value)
    raise ValueError("must be a time as RFC 3339 writes it")


class UsageSource(StrEnum):
    """Where the token counts come from."""

    PROVIDER = "provider"
    ESTIMATED = "estimated"
    NONE = "none"
    """The route has no tokens, or its answer told of none; all counts are 0."""


class RouteName(StrEnum):
    """The route of the inference API that a request came by."""

    CHAT_COMPLETIONS = "chat.completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    PREDICT = "predict"
    ASYNC_PREDICT = "async_predict"
    SYNC = "sync"


class Outcome(StrEnum):
    """How the request ended, seen from the proxy."""

    COMPLETE = "complete"
    CLIENT_DISCONNECTED = "client_disconnected"
    UPSTREAM_ERROR = "upstream_error"
    GATEWAY_INTERRUPTED = "gateway_interrupted"


class Kind(StrEnum):
    """Whether the event is a request's own count or a later correction of one."""

    USAGE = "usage"
    CORRECTION = "correction"


def _is_nothing(value: object) -> bool:
    return not value


def _bounded(schema: dict[str, Any]) -> None:
    """Add to an event's JSON Schema what metering asks of one and types do not say: bounds, and no U+0000 in texts."""
    fields = schema["properties"]
    for name, longest in LONGEST.items():
        field = fields[to_camel(name)]
        _bound_text(next((one for one in field.get("anyOf", ()) if one["type"] == "string"), field), longest)
    for name in ("chargedGroups", "parentGroups"):
        fields[name]["maxItems"] = MOST_GROUPS
        _bound_text(fields[name]["items"], LONGEST["group_id"])
    fields["timestamp"]["pattern"] = _RFC_3339
    counts = {to_camel(name): {"minimum": 0} for name in Tokens.model_fields}
    is_correction = {"properties": {"kind": {"const": Kind.CORRECTION.value}}, "required": ["kind"]}
    schema |= {"if": is_correction, "else": {"properties": {"tokens": {"properties": counts}}}}


def _bound_text(schema: dict[str, Any], longest: int) -> None:
    schema |= {"maxLength": longest, "pattern": "^[^\u0000]*$"}


def _bounded_counts(schema: dict[str, Any]) -> None:
    for field in schema["properties"].values():
        field |= {"minimum": -MOST_TOKENS, "maximum": MOST_TOKENS}


def _bounded_instance(schema: dict[str, Any]) -> None:
    _bound_text(schema["properties"]["instance"], LONGEST["idempotency_key"])


class Tokens(InternalRecord):
    """Token counts. Signed, because a correction may take back; a usage event's are not negative."""

    model_config = ConfigDict(json_schema_extra=_bounded_counts)

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = Field(default=0, description="Part of inputTokens, not beside it.")


class Producer(InternalRecord):
    """Who wrote the event and as which one: gapless per instance, so that a loss shows."""

    model_config = ConfigDict(json_schema_extra=_bounded_instance)

    instance: str = Field(description="Id kept in the spool file.")
    sequence: Annotated[int, Field(ge=1, le=MOST_NUMBER, description="Gapless from 1, never reused.")]


class UsageDraft(InternalRecord):
    """A usage event before a spool has numbered it."""

    idempotency_key: str = Field(description="ULID minted at admission.")
    request_id: str = Field(description="UUID; the x-request-id of the answer and of the upstream call.")
    timestamp: Annotated[Timestamp, BeforeValidator(_as_written)] = Field(
        description="Admission. Names the UTC day the event belongs to."
    )
    workspace_id: str
    group_id: str = Field(description="The key's own group.")
    charged_groups: tuple[str, ...] = Field(
        description="Groups whose limit totals the event adds to, the own group first; empty for a correction."
    )
    parent_groups: tuple[str, ...] = Field(
        default=(),
        description="The groups above the own one, its parent first, whichever way limits are inherited; events from "
        "before it was told have none.",
    )
    external_entity_id: str
    api_key_prefix: str
    model_slug: str = Field(description="The slug at admission.")
    request_metadata: dict[str, str] | None = None
    tokens: Tokens
    cost: Annotated[int, Field(ge=0, le=MOST_COST)] = Field(
        default=0,
        exclude_if=_is_nothing,
        description="What counts against limits of the type COST, in millionths of the currency's minor unit, by the "
        "prices at admission; absent where there are none. A bill is made from the prices, not from this.",
    )
    usage_source: UsageSource
    outcome: Outcome
    kind: Kind = Kind.USAGE
    corrects: str | None = Field(default=None, description="A correction's target: an idempotencyKey.")
    reason: str | None = None
    route: str = Field(
        default=RouteName.CHAT_COMPLETIONS,
        description="A `RouteName`, or one of a newer version's; events from before it was told are chat completions.",
    )
    stream: bool
    traceparent: str = Field(
        default="",
        exclude_if=_is_nothing,
        description="The span of the request (W3C Trace Context), where traces are on and it is sampled; else absent.",
    )
    latency_ms: int | None = Field(ge=0, le=MOST_NUMBER, description="Admission to the upstream's last byte.")
    first_byte_ms: int | None = Field(ge=0, le=MOST_NUMBER, description="Admission to the upstream's first byte.")

    @model_validator(mode="after")
    def _usage_is_not_negative(self) -> Self:
        tokens = self.tokens
        if self.kind is Kind.USAGE and min(tokens.input_tokens, tokens.output_tokens, tokens.cached_input_tokens) < 0:
            raise ValueError("a usage event's token counts must not be negative")
        return self


class UsageEvent(UsageDraft):
    """What one request consumed; the unit of billing. Deduplicate by ``idempotencyKey``."""

    model_config = ConfigDict(json_schema_extra=_bounded)

    producer: Producer
