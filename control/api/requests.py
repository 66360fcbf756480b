"""The route that finds one request (contract 2.5)."""

from typing import Any

from litestar import Controller, get
from litestar.params import FromPath
from sqlalchemy import Connection

from control.api import deliveries, errors, events
from control.api.common import AtDesk, ManagementRequest
from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from control.store import requests
from control.store.requests import RequestStory
from runtime import ids
from schemas.billing import FoundRequest
from schemas.usage import UsageEvent

_OF_BOTH = ("group_id", "api_key_prefix", "model_slug", "route", "latency_ms", "first_byte_ms")
"""What an event and a record say alike."""


class RequestController(Controller):
    """``/v1/gateway/requests``."""

    path = "/gateway/requests"
    tags = ("Billing",)

    @get("/{request_id:str}", operation_id="get_request", summary="Find a request", responses=errors.READ_ERRORS)
    async def get_one(self, request: ManagementRequest, desk: AtDesk, request_id: FromPath[str]) -> FoundRequest:
        """Find what became of one request by the `x-request-id` of its answer.

        A complete one is found as soon as its event is counted and for as long as the ledger is kept; one that was
        refused or failed for 24 hours. A call that was refused with 401 belongs to no workspace.
        """
        asked = checked(request_id)

        def find(connection: Connection) -> RequestStory | None:
            return requests.story(connection, asked)

        story = await desk.look(request.auth, find)
        if story is None or story.workspace_id is None:
            raise NotFoundError("request_id: no request that is kept has this id", param="request_id", code="not_found")
        if story.workspace_id != request.auth.workspace_id:
            raise ForbiddenError("request_id: belongs to another workspace", param="request_id", code="other_workspace")
        return body(asked, story, by_operator=False)


def checked(request_id: str) -> str:
    """Return a request's id as it is kept. Raise InvalidError where it is none."""
    if ids.moment_of(request_id) is None:
        message = "request_id: must be the x-request-id of an answer, a UUID of version 7"
        raise InvalidError(message, param="request_id")
    return request_id.lower()


def body(request_id: str, story: RequestStory, *, by_operator: bool) -> FoundRequest:
    """Return a request as it is answered; what the operator's settings name is shown `by_operator` alone."""
    record, event = story.record, None if story.entry is None else story.entry.event
    kept = event or record
    if kept is None:
        raise ValueError("a story has a record or an event")
    shown: dict[str, Any] = {name: getattr(kept, name) for name in _OF_BOTH}
    shown |= {"status": None, "reason": None, "detail": None, "upstream": None}
    if record is not None:
        shown |= {"status": record.status, "reason": record.reason, "detail": record.detail}
        shown["upstream"] = record.upstream if by_operator or not record.by_operator else None
    return FoundRequest(
        request_id=request_id,
        at=kept.timestamp if isinstance(kept, UsageEvent) else kept.at,
        outcome=(kept.outcome if isinstance(kept, UsageEvent) else kept.ended).value,
        event=None if story.entry is None else events.body(story.entry),
        delivery=None if story.delivery is None else deliveries.body(story.delivery),
        **shown,
    )
