"""What all contracts share: field naming, times, and the base classes."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


def rfc3339(moment: datetime) -> str:
    """Return an aware time as RFC 3339 UTC with milliseconds, ending in ``Z`` (contract 2)."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


Timestamp = Annotated[
    AwareDatetime,
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
"""An aware time; on the wire RFC 3339 UTC with milliseconds and ``Z``."""


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time of the years 1 to 9999 in UTC") from None


GivenMoment = Annotated[Timestamp, AfterValidator(_utc)]
"""A time that a body names."""


LONGEST_OVERLAP_S = 30 * 24 * 3600
"""How long the credential before may be valid beside a rotation's new one at most: 30 days."""

NO_CONTROL_CHARACTERS = r"^[^\u0000-\u001f\u007f-\u009f]*$"
"""The pattern of what people name: none of Unicode's category Cc, which terminals and tables obey."""


class NullMeans:
    """Takes null in a body for a value, as clients send it for what they never set. What is answered is never null."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the field's schema with null beside it."""
        nullable = core_schema.nullable_schema(handler(source))
        return core_schema.no_info_after_validator_function(self._given, nullable)

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return what a body may be; an answer is described without null."""
        nullable = core["schema"]
        return handler(nullable["schema"] if handler.mode == "serialization" else nullable)

    def _given(self, value: object) -> object:
        return self._value if value is None else value


class InternalRecord(BaseModel):
    """A contract between our own processes. Unknown fields of a newer version are ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        serialize_by_alias=True,
        frozen=True,
        extra="ignore",
    )


class Message(BaseModel):
    """A body of the management API: snake_case on the wire, unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
