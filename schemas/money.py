"""Prices, and what was used for them: bodies of /v1/gateway/prices and /v1/gateway/usage."""

from datetime import date
from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, RootModel, model_validator

from schemas.api import ExternalEntityId
from schemas.base import Message, Timestamp
from schemas.limits import Slug

MOST_PRICES = 5_000
"""Prices of one workspace: about what a body of the management API can hold."""

UnitPrice = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?$",
        description="A decimal string, at most 12 digits on either side of the point.",
    ),
]


class Price(Message):
    """What the use of a slug costs from a UTC day on: per million tokens, and per request.

    The price of a customer is the newest one with its external_entity_id that has begun, else the newest without one.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    slug: Slug
    external_entity_id: ExternalEntityId | None = Field(
        default=None, description="The one customer that it is for; without it, every customer without its own."
    )
    from_: date = Field(alias="from", description="The first UTC day it is for, inclusive, until a newer one begins.")
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$", description="ISO 4217, as USD.")]
    input: UnitPrice = Field(description="Of a million input tokens that were not cached.")
    cached_input: UnitPrice = Field(description="Of a million cached input tokens.")
    output: UnitPrice = Field(description="Of a million output tokens.")
    request: UnitPrice = Field(description="Of one request.")


class Prices(RootModel[Annotated[tuple[Price, ...], Field(max_length=MOST_PRICES)]]):
    """All prices of a workspace."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len({(price.slug, price.external_entity_id, price.from_) for price in self.root}) < len(self.root):
            raise ValueError("one slug may have at most one price for a customer from a day on")
        return self


class Dimension(StrEnum):
    """What sums of usage are told apart by."""

    DAY = "day"
    CUSTOMER = "customer"
    MODEL = "model"
    GROUP = "group"
    KEY = "key"


class UsageLine(Message):
    """Sums of a stretch of UTC days, corrections apart. Of what tells lines apart it has what was asked for."""

    day: date | None = None
    customer: str | None = Field(default=None, description="An external_entity_id.")
    model: str | None = Field(default=None, description="A slug, as it was at admission.")
    group: str | None = Field(default=None, description="A group's id.")
    key: str | None = Field(default=None, description="A key's prefix.")
    last_used_at: Timestamp | None = Field(default=None, description="Of a key: its last request of these days.")
    requests: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = Field(description="Part of input_tokens.")
    corrections: int
    corrected_input_tokens: int = Field(description="Signed sum of the corrections.")
    corrected_output_tokens: int = Field(description="Signed sum of the corrections.")
    price: Price | None = Field(default=None, description="The price of the whole line, where it has one model's.")
    currency: str | None = Field(default=None, description="Null where there is no price.")
    amount: str | None = Field(
        default=None, description="A decimal string, corrections included; rounded half-even to the minor unit, once."
    )
