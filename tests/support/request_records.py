"""Records of requests that came to nothing, as a proxy tells them."""

from datetime import datetime

from runtime import ids
from schemas.monitoring.requests import RequestEnd, RequestRecord


def refused(at: datetime, workspace_id: str | None, reason: str, group_id: str | None = None) -> RequestRecord:
    """Return a request that was refused at `at`."""
    return RequestRecord(
        request_id=ids.uuid7(at),
        at=at,
        ended=RequestEnd.REFUSED,
        status=429,
        reason=reason,
        workspace_id=workspace_id,
        group_id=group_id,
        model_slug="acme/m",
        instance="proxy-a",
    )
