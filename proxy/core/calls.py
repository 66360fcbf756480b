"""The values that pass between the flow and what it talks to: upstreams and the spool."""

import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

import msgspec

from domain.costs import Tariff, UnitCost
from proxy.core import usage_event
from proxy.limits.days import DayLimit
from proxy.limits.windows import RateChain, WindowLimit
from schemas.usage import RouteName


class Failure(Enum):
    """Why an upstream gave no answer."""

    UNREACHABLE = "unreachable"
    """No connection, so that no byte of the request was sent."""
    CONNECT_TOO_SLOW = "connect_too_slow"
    """The same, and it took too long to find out."""
    TOO_SLOW = "too_slow"
    BROKE_OFF = "broke_off"
    """The connection ended after the request had gone out."""
    REFUSED_ADDRESS = "refused_address"
    """The host resolves to an address that may not be called."""
    NO_ROOM = "no_room"
    """As many connections to upstreams are open as may be."""


class Dialect(Enum):
    """What a target speaks."""

    CHAT = "chat"
    """OpenAI's chat completions, with a bearer token."""
    MESSAGES = "messages"
    """Anthropic's Messages API, translated."""
    PASSED_MESSAGES = "passed_messages"
    """The same, for clients that speak it themselves."""
    VERTEX = "vertex"
    """Chat completions, with tokens that a service account's key is exchanged for."""


class BrokenOffError(Exception):
    """The upstream ended its answer before it was whole, or fell silent for too long."""


class SpoolUnavailableError(Exception):
    """A usage event could not be made durable: the disk is full or failing, or the spool is at its bound."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What of a client's request goes on beside its body; each part is checked before."""

    slug: str | None = None
    """Where the path names it."""
    method: str = "POST"
    suffix: str = ""
    """Behind the route's URL: more of the path, or a query with its `?`."""
    header_lines: bytes = field(default=b"", repr=False)
    """Each with its end; `content-type` and `accept` among them."""


def _hold_nothing(_: int) -> None:
    """Count nothing."""


class UpstreamRequest(msgspec.Struct, eq=False):
    """One call of an upstream."""

    url: str
    body: bytes | mmap.mmap
    request_id: str
    credential: str | None
    """Sent as a bearer token; None where the target needs none."""
    by_operator: bool = False
    """Whether the operator's settings name the place; a lab's own is judged by what labs are allowed."""
    dialect: Dialect = Dialect.CHAT
    header_lines: bytes = b""
    """Further ones, each with its end."""
    workspace_id: str = ""
    """Whose share of the look-ups and of the turns is used."""
    envelope: Envelope | None = None
    """None: a JSON body is posted to the URL as it stands."""
    max_output_tokens: int | None = None
    """What the model can answer at most, where its endpoint says it."""
    on_sent: Callable[[], None] | None = None
    """Called once when all of it has been handed to the system, so that nobody here needs the body any more."""
    hold: Callable[[int], None] = _hold_nothing
    """Told how much of the answer is gathered here. Raises AnswersFullError."""

    def __repr__(self) -> str:
        """Name it without its credential and its prompt."""
        return f"UpstreamRequest({self.request_id!r})"


@dataclass(slots=True)
class Key:
    """A developer's key whose group and every ancestor are there."""

    prefix: str
    sha256: bytes
    workspace_id: str
    group_id: str
    suspended: bool
    """Whether the lab's workspace is."""
    expires_at: datetime | None = None
    """From when on it is refused."""
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Where one group's calls of one slug go, and what holds for them."""

    slug: str
    workspace_id: str
    group_id: str
    external_entity_id: str
    charged_groups: tuple[str, ...]
    url: str
    by_operator: bool
    """Whether the operator's settings name the place, not the lab."""
    target_model: str | None
    credential: str | None = field(repr=False)
    stored_metadata_only: bool
    """Whether the upstream refuses metadata of what it is not asked to store (contract 3: OPENAI)."""
    day_limits: tuple[DayLimit, ...]
    rates: RateChain
    concurrent: tuple[WindowLimit, ...] = ()
    """Of requests in flight."""
    max_output_tokens: int | None = None
    """What the model can answer at most, where its endpoint says it."""
    upstream_objects: bool = False
    """Whether bodies may name objects at the upstream."""
    dialect: Dialect = Dialect.CHAT
    name: RouteName = RouteName.CHAT_COMPLETIONS
    parent_groups: tuple[str, ...] = ()
    tariff: Tariff | None = None
    """What its requests cost; None where the workspace has no prices."""
    event: bytes = field(init=False, repr=False)
    """What all its usage events have in common."""

    def __post_init__(self) -> None:
        common = usage_event.of_route(
            workspace_id=self.workspace_id,
            group_id=self.group_id,
            charged_groups=self.charged_groups,
            parent_groups=self.parent_groups,
            external_entity_id=self.external_entity_id,
            slug=self.slug,
            name=self.name,
        )
        object.__setattr__(self, "event", common)

    def unit_cost(self, now: datetime) -> UnitCost | None:
        """Return what a request and its tokens cost on the day of `now`; None where there is no price."""
        return None if self.tariff is None else self.tariff.on(now.date())


class Unserved(Enum):
    """Why a slug that a key may call leads nowhere."""

    CREDENTIAL = "credential"
    """The target's secret is missing, cannot be opened, or is not of the kind that the provider takes."""


@dataclass(frozen=True, slots=True)
class Model:
    """A slug as `GET /v1/models` lists it."""

    slug: str
    created_at: datetime
