"""Wires the management API into one router, to be mounted beside the proxy's handlers.

Never sets anything for the whole application: authentication, errors and encoding hold on this router alone.
"""

from collections.abc import Callable

from litestar import Router
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ExceptionHandlersMap, Guard

from control import auth
from control.api import common, errors
from control.api.api_keys import ApiKeyController
from control.api.common import Desk, ManagementRequest
from control.api.endpoints import EndpointController
from control.api.groups import GroupController
from control.store.workspaces import Keys
from runtime.clock import Clock
from runtime.database import Database
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.base import Message

SECURITY_SCHEME = "ManagementKey"

UNROUTED: ExceptionHandlersMap = {HTTPException: errors.not_served}
"""For the application that mounts the router: what no route takes never reaches a router's own handlers."""


def build(database: Database, vault: Vault, clock: Clock, settings: Settings, poke: Callable[[], None]) -> Router:
    """Make the router of ``/v1/gateway``. `poke` is called on the event loop after every committed change."""
    desk = Desk(database=database, vault=vault, clock=clock, settings=settings, poke=poke)
    return Router(
        path="/v1",
        route_handlers=[EndpointController, GroupController, ApiKeyController],
        dependencies={"desk": Provide(lambda: desk, sync_to_thread=False)},
        guards=[_guard(database)],
        exception_handlers=errors.EXCEPTION_HANDLERS,
        request_class=ManagementRequest,
        request_max_body_size=common.MAX_BODY_BYTES,
        type_encoders={Message: common.encode},
        security=[{SECURITY_SCHEME: []}],
        signature_types=[Desk],
    )


def openapi_config(version: str) -> OpenAPIConfig:
    """Describe the API at ``/schema/openapi.json``; the application that mounts the router passes it on."""
    scheme = SecurityScheme(
        type="apiKey",
        name="Authorization",
        security_scheme_in="header",
        description="`Api-Key <management key>` or `Bearer <management key>`.",
    )
    return OpenAPIConfig(
        title="Tollgate",
        version=version,
        path="/schema",
        render_plugins=[JsonRenderPlugin()],
        components=Components(security_schemes={SECURITY_SCHEME: scheme}),
        use_handler_docstrings=True,
    )


def _guard(database: Database) -> Guard:
    async def authenticate(connection: common.Connected, _: BaseRouteHandler) -> None:
        common.refuse_nul(connection)
        header, method = connection.headers.get("authorization"), str(connection.scope.get("method"))
        connection.scope["auth"] = await database.read(lambda view: auth.identify(Keys(view), header, method))

    return authenticate
