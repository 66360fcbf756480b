"""The operator's port, and the two paths by which others see whether a process may take traffic."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from litestar import Litestar, Response, get
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler

Check = Callable[[], str | None]
"""Says what is missing before the process may take traffic; None: nothing."""


def health_handlers(checks: Mapping[str, Check]) -> list[HTTPRouteHandler]:
    """Return ``/healthz`` (alive) and ``/readyz`` (may take traffic: every check passes)."""

    @get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @get("/readyz", include_in_schema=False)
    async def readyz() -> Response[dict[str, Any]]:
        missing = {name: problem for name, check in checks.items() if (problem := check()) is not None}
        body = {"status": "not ready", "missing": missing} if missing else {"status": "ready"}
        return Response(body, status_code=503 if missing else 200)

    return [healthz, readyz]


def ops_app(checks: Mapping[str, Check], handlers: Sequence[BaseRouteHandler] = ()) -> Litestar:
    """Return the operator's application: health, and what else the process shows there."""
    return Litestar(route_handlers=[*health_handlers(checks), *handlers], openapi_config=None, logging_config=None)
