"""What of the public port is not shown under a lab's own host name, and to nobody's (contract 6).

X-Forwarded-Host is not looked at. Whose keys work under a name is for those who know keys.
"""

from collections.abc import Awaitable, Callable

from litestar.exceptions import HTTPException, NotFoundException
from litestar.types import ASGIApp, Middleware, Receive, Scope, Send

from domain import hosts

Owner = Callable[[str], Awaitable[str | None]]
"""Return the workspace that alone is served under a host name."""

_OPERATORS = ("/schema", "/metrics")
_ALWAYS = ("/healthz", "/readyz")
"""Asked by address, by what watches the process."""


def middleware(owner: Owner, *, is_strict: bool) -> Middleware:
    """Hide the operator's pages under a lab's name; where `is_strict`, answer 421 under a name that is nobody's."""

    def around(app: ASGIApp) -> ASGIApp:
        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope.get("path", "")
            is_operators = path.startswith(_OPERATORS)
            if is_operators or (is_strict and path not in _ALWAYS):
                workspace = await owner(hosts.named(dict(scope["headers"]).get(b"host", b"").decode("latin-1")))
                if workspace is None and is_strict:
                    raise HTTPException("nothing is served under this host name", status_code=421)
                if workspace is not None and is_operators:
                    raise NotFoundException
            await app(scope, receive, send)

        return serve

    return around
