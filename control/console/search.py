"""The one search box: what a text names leads to its page; and the page of one request.

Never tells that something is another workspace's: it is as if it were not there.
"""

from collections.abc import Iterator

from litestar import Controller, Response, get
from litestar.params import FromPath, FromQuery
from sqlalchemy import Connection

from control import credentials
from control.api import requests as api
from control.api.common import AtDesk, ManagementRequest
from control.console import pages
from control.console.sign_in import AtPages
from control.core.refusals import NotFoundError
from control.store import requests
from control.store.api_keys import SqlApiKeys
from control.store.endpoints import SqlEndpoints
from control.store.groups import SqlGroups
from control.store.requests import RequestStory
from metering.store import events as ledger
from runtime import ids
from webhooks.store import pages as deliveries

_LONGEST = 255


class SearchController(Controller):
    """``/console/search``."""

    path = "/search"

    @get()
    async def search(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, q: FromQuery[str] = ""
    ) -> Response[None] | Response[str]:
        """Lead to what the text names: an id, a key's prefix, an external id or a slug; else say what can be found."""
        workspace_id, text = request.auth.workspace_id, q.strip()[:_LONGEST]
        found = await desk.look(request.auth, lambda connection: page_of(connection, workspace_id, text))
        return templates.page(request, "search.html", q=text) if found is None else pages.moved(found)


class RequestPageController(Controller):
    """``/console/requests``: of a lab its own, of the operator everyone's."""

    path = "/requests"

    @get("/{request_id:str}", opt={"both": True})
    async def one(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, request_id: FromPath[str]
    ) -> Response[str]:
        """Show what became of one request."""
        person, asked = request.scope["auth"], api.checked(request_id)
        story = await desk.look(request.auth, lambda connection: requests.story(connection, asked))
        if story is None or not (person.is_operator or story.workspace_id == person.workspace_id):
            raise NotFoundError("request: none that is kept has this id", code="not_found")
        shown = api.body(asked, story, by_operator=person.is_operator)
        return templates.page(request, "request.html", found=shown, workspace_id=story.workspace_id)


def page_of(connection: Connection, workspace_id: str, text: str) -> str | None:
    """Return the address of the page of what the text names in the workspace; None where it names nothing."""
    return next(_pages(connection, workspace_id, text), None) if text else None


def _pages(connection: Connection, workspace_id: str, text: str) -> Iterator[str]:
    if ids.moment_of(text) is not None:
        story: RequestStory | None = requests.story(connection, text.lower())
        if story is not None and story.workspace_id == workspace_id:
            yield pages.address("requests", text.lower())
    if deliveries.owner(connection, text) == workspace_id:
        yield pages.address("webhook", "deliveries", text)
    event = ledger.find(connection, text)
    if event is not None and event.workspace_id == workspace_id:
        yield pages.address("events", event.idempotency_key)
    for find in (_group, _key, _model):
        yield from find(connection, workspace_id, text)
    if SqlGroups(connection).beginning_with(workspace_id, text, "", 1):
        yield pages.address("customers", q=text)


def _group(connection: Connection, workspace_id: str, text: str) -> Iterator[str]:
    groups = SqlGroups(connection)
    named = groups.external_id_owner(workspace_id, text)
    if named is not None:
        yield pages.address("customers", named)
    chain = groups.chain(text)
    if chain and chain[0].record.workspace_id == workspace_id:
        yield pages.address("customers", text)


def _key(connection: Connection, workspace_id: str, text: str) -> Iterator[str]:
    key = SqlApiKeys(connection).find(credentials.prefix(text))
    if key is not None and key.record.workspace_id == workspace_id:
        yield pages.address("customers", key.record.group_id) + "#keys"


def _model(connection: Connection, workspace_id: str, text: str) -> Iterator[str]:
    for endpoint in SqlEndpoints(connection).page(workspace_id, "", 1, text):
        yield pages.address("models", endpoint.record.id)
    endpoint_of_id = SqlEndpoints(connection).find(text)
    if endpoint_of_id is not None and endpoint_of_id.record.workspace_id == workspace_id:
        yield pages.address("models", text)
