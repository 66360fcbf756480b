"""Wires the management API into one router and the console into another, to be mounted beside the proxy's handlers.

Nothing is set for the whole application: authentication, errors and encoding hold on this router alone.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial

from litestar import Router
from litestar.di import Provide
from litestar.enums import HttpMethod
from litestar.exceptions import HTTPException, MethodNotAllowedException
from litestar.handlers import BaseRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.routes import HTTPRoute
from litestar.types import ControllerRouterHandler, ExceptionHandlersMap, Guard, Middleware
from sqlalchemy import Connection

from control import auth
from control.api import common, error_texts, errors
from control.api.api_keys import ApiKeyController, BatchPrefixController, RegisterPrefixController
from control.api.billing_webhook import BillingWebhookController
from control.api.common import Desk, ManagementRequest, ManagementResponse
from control.api.deliveries import DeliveryController
from control.api.endpoints import EndpointController
from control.api.events import EventController
from control.api.groups import GroupController
from control.api.openapi import page
from control.api.openapi.description import DescriptionConfig
from control.api.requests import RequestController
from control.api.secrets import SecretController
from control.api.usage import PriceController, UsageController
from control.console import router as console
from control.reconciliations import Reconciliations
from control.sample_delivery import SampleDelivery
from control.store.workspaces import SqlCredentials
from control.trial_call import TrialCall
from domain import hosts
from runtime.clock import Clock
from runtime.database import engines as databases
from runtime.database.engines import TRANSACTION_BOUND_S, Database
from runtime.database.readers import ReaderKind
from runtime.http import host_wall as host_walls
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.base import Message
from schemas.money import Prices

SECURITY_SCHEME = "ManagementKey"

_CONTROLLERS = (
    EndpointController,
    GroupController,
    ApiKeyController,
    SecretController,
    EventController,
    BillingWebhookController,
    DeliveryController,
    RequestController,
    UsageController,
    PriceController,
)
_log = logging.getLogger(__name__)


def host_wall(database: Database, settings: Settings) -> Middleware:
    """Return what the application that mounts the router hides under a lab's own host name."""

    async def owner(host: str) -> str | None:
        return await database.read(lambda view: SqlCredentials(view).host_owner(host), ReaderKind.SIGN_IN)

    return host_walls.middleware(owner, is_strict=settings.strict_hosts)


UNROUTED: ExceptionHandlersMap = {HTTPException: errors.not_served}
"""For the application that mounts the router: what no route takes never reaches a router's own handlers."""


def desk(
    database: Database,
    vault: Vault,
    clock: Clock,
    settings: Settings,
    in_force: Callable[[], Awaitable[None]],
    *,
    ledger_now: Callable[[Connection], datetime] | None = None,
    reconciliations: Reconciliations | None = None,
) -> Desk:
    """Return what the API and the console work at. `in_force` is awaited after every committed change, before its
    answer.

    `ledger_now` reads the ledger's clock; None: the one that every process of the database goes by.
    `reconciliations`, which the caller has to run, compares accounts for the operator.
    """
    _warn(settings)
    return Desk(
        database=database,
        vault=vault,
        clock=clock,
        settings=settings,
        sample_delivery=SampleDelivery(vault, allow_private=settings.allow_private_receivers),
        trial_call=TrialCall(settings),
        in_force=in_force,
        ledger_now=ledger_now or partial(databases.now, clock=clock),
        reconciliations=reconciliations,
    )


def handlers(desk: Desk) -> Sequence[ControllerRouterHandler]:
    """Return the management API, as `build` makes it, and the console beside it."""
    return [build(desk), *console.build(desk)]


def build(desk: Desk) -> Router:
    """Make the router of ``/v1/gateway`` and ``/v1/secrets``."""
    return Router(
        path="/v1",
        route_handlers=(*_CONTROLLERS, RegisterPrefixController, BatchPrefixController),
        dependencies={"desk": Provide(lambda: desk, sync_to_thread=False)},
        guards=[_guard(desk.database)],
        exception_handlers=errors.EXCEPTION_HANDLERS,
        request_class=ManagementRequest,
        response_class=ManagementResponse,
        request_max_body_size=common.MAX_BODY_BYTES,
        type_encoders={Message: common.encode, Prices: common.encode},
        security=[{SECURITY_SCHEME: []}],
        signature_types=[Desk],
    )


def openapi_config(version: str) -> OpenAPIConfig:
    """Describe the API at ``/schema/openapi.json``, and for people at ``/schema``, once the router is mounted."""
    scheme = SecurityScheme(
        type="apiKey",
        name="Authorization",
        security_scheme_in="header",
        description="`Api-Key <management key>` or `Bearer <management key>`.",
    )
    return DescriptionConfig(
        title="Tollgate",
        version=version,
        openapi_router=Router("/schema", route_handlers=[], response_headers=page.HEADERS, include_in_schema=False),
        render_plugins=[JsonRenderPlugin(), page.SchemaPage()],
        components=Components(security_schemes={SECURITY_SCHEME: scheme}),
        use_handler_docstrings=True,
        controllers=_CONTROLLERS,
    )


def _warn(settings: Settings) -> None:
    held_s, bound_s = settings.events_hold_back_s, TRANSACTION_BOUND_S
    if held_s < bound_s + 1:
        _log.warning(
            "events_hold_back_s is %g, but a transaction of the ledger may take %d s: who follows its events may miss "
            "some; set it to %d at least",
            held_s,
            bound_s,
            bound_s + 1,
        )


def _refuse_options(connection: common.Connected) -> None:
    """Refuse OPTIONS: the framework would name the methods of one handler as those of the whole path."""
    if connection.scope.get("method") == HttpMethod.OPTIONS:
        template = connection.scope["path_template"]
        here = [
            route for route in connection.app.routes if isinstance(route, HTTPRoute) and route.path_format == template
        ]
        allowed = sorted({method for route in here for method in route.methods})
        raise MethodNotAllowedException(headers={"allow": ", ".join(allowed)})


def _guard(database: Database) -> Guard:
    async def authenticate(connection: common.Connected, handler: BaseRouteHandler) -> None:
        common.refuse_nul(connection)
        _refuse_options(connection)
        header, method = connection.headers.get("authorization"), str(connection.scope.get("method"))
        host = hosts.named(connection.headers.get("host", ""))
        connection.scope["auth"] = await database.read(
            lambda view: auth.identify(SqlCredentials(view), header, method, host), ReaderKind.SIGN_IN
        )
        error_texts.check_query(handler, list(connection.query_params.multi_items()))

    return authenticate
