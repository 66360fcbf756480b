"""The console's router: its pages, its guard, and the files beside its templates."""

from typing import Any

from litestar import Request, Response, Router, get
from litestar.di import Provide
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from control.api import common
from control.api.common import Desk, ManagementRequest
from control.console import errors, guard, pages
from control.console.customers import CustomerController
from control.console.events import EventPageController
from control.console.keys import KeyController
from control.console.models import ModelController
from control.console.operator.processes import ProcessController
from control.console.operator.reconcile import ReconcileController
from control.console.operator.workspaces import OperatorController
from control.console.overview import OverviewController, PastDays
from control.console.pages import Pages
from control.console.search import RequestPageController, SearchController
from control.console.sign_in import AtPages, Attempts, SignInController
from control.console.usage import UsagePageController
from control.console.webhook import WebhookController
from control.core.refusals import NotFoundError


@get("/", opt={"both": True})
async def begin(request: ManagementRequest) -> Response[None]:
    """Lead to the first page of whoever is signed in."""
    return pages.moved(pages.address("operator" if request.scope["auth"].is_operator else "overview"))


@get("/static/{name:str}", opt=guard.OPEN)
async def static(templates: AtPages, name: FromPath[str]) -> Response[bytes]:
    """Return a file beside the templates."""
    file = templates.file(name)
    if file is None:
        raise NotFoundError("no file has this name", code="not_found")
    return file


@get("/{rest:path}", opt={"both": True})
async def nothing() -> Response[str]:
    """Answer every other address with a page, as people come here."""
    raise NotFoundError("no page has this address", code="not_found")


@get("/", include_in_schema=False)
async def from_the_root(request: Request[Any, Any, Any]) -> Response[None]:
    """Lead a browser to the console; to everything else nothing is at this path."""
    if "text/html" not in request.headers.get("accept", ""):
        raise NotFoundException
    return pages.moved("/console")


def build(desk: Desk) -> list[ControllerRouterHandler]:
    """Return what an application mounts to have the console: the router, and the way to it from ``/``."""
    made, attempts, past_days = Pages(), Attempts(), PastDays()
    lab: list[ControllerRouterHandler] = [CustomerController, KeyController, ModelController, EventPageController]
    lab += [OverviewController, UsagePageController, WebhookController, SearchController, RequestPageController]
    operator: list[ControllerRouterHandler] = [OperatorController, ProcessController, ReconcileController]
    router = Router(
        path="/console",
        route_handlers=[SignInController, *lab, *operator, begin, static, nothing],
        dependencies={
            "desk": Provide(lambda: desk, sync_to_thread=False),
            "templates": Provide(lambda: made, sync_to_thread=False),
            "past_days": Provide(lambda: past_days, sync_to_thread=False),
            "attempts": Provide(lambda: attempts, sync_to_thread=False),
        },
        guards=[guard.guard(desk)],
        exception_handlers=errors.handlers(made),
        request_class=ManagementRequest,
        request_max_body_size=common.MAX_BODY_BYTES,
        include_in_schema=False,
        signature_types=[Desk],
    )
    return [router, from_the_root]
