"""Pages of the models: endpoints with their targets, and the secrets that targets name."""

from typing import Any

from litestar import Controller, Response, get, post
from litestar.params import FromPath, FromQuery
from sqlalchemy import Connection

from control.api import common
from control.api.common import AtDesk, Desk, ManagementRequest
from control.console import forms, guard, pages
from control.console.sign_in import AtPages
from control.core import bodies, preconditions
from control.core.records import StoredSecret
from control.core.refusals import RefusalError
from control.flow import endpoints as flow
from control.flow import secrets
from control.store.endpoints import SqlEndpoints
from control.store.secrets import SqlSecrets
from control.store.workspaces import SqlWorkspaces
from schemas.api import CreateEndpoint, CreateSecret, Endpoint, Region, UpdateEndpoint
from schemas.targets import Provider

ROWS = 50
_LONGEST_PROMPT = 4000
_OFFERED_SECRETS = 1000


class ModelController(Controller):
    """``/console/models``."""

    path = "/models"

    @get()
    async def show(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, cursor: FromQuery[str] = ""
    ) -> Response[str]:
        """List the endpoints and the secrets."""
        return templates.page(request, "models.html", **await _listed(request, desk, cursor))

    @get("/new")
    async def ask(self, request: ManagementRequest, desk: AtDesk, templates: AtPages) -> Response[str]:
        """Show the form of a new endpoint."""
        return templates.page(request, "model.html", endpoint=None, **await _offered(request, desk), fields={})

    @post("/new", status_code=200)
    async def create(self, request: ManagementRequest, desk: AtDesk, templates: AtPages) -> Response[Any]:
        """Make an endpoint."""
        fields, private = await guard.form(request), desk.settings.allow_private_upstreams
        try:
            values = forms.given(fields, "slug", "region") | {"targets": [forms.target(fields)]}
            wanted = forms.body(CreateEndpoint, values)
            await desk.change(request.auth, lambda unit: flow.create(unit, wanted, allow_private=private))
        except RefusalError as error:
            offered = await _offered(request, desk)
            return templates.refused(request, "model.html", error, endpoint=None, **offered, fields=fields)
        return _list()

    @get("/{endpoint_id:str}")
    async def one(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, endpoint_id: FromPath[str]
    ) -> Response[str]:
        """Show one endpoint with its form."""
        endpoint = await _endpoint(request, desk, endpoint_id)
        return templates.page(
            request, "model.html", **_shown(endpoint), **await _offered(request, desk), fields=_fields(endpoint)
        )

    @post("/{endpoint_id:str}", status_code=200)
    async def change(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, endpoint_id: FromPath[str]
    ) -> Response[Any]:
        """Change an endpoint, if nobody changed it meanwhile."""
        fields, private = await guard.form(request), desk.settings.allow_private_upstreams
        try:
            values = forms.given(fields, "slug") | {"targets": [forms.target(fields)]}
            wanted = forms.body(UpdateEndpoint, values)
            await desk.change(
                request.auth,
                lambda unit: flow.update(unit, endpoint_id, wanted, allow_private=private),
                if_match=fields.get("etag"),
            )
        except RefusalError as error:
            endpoint = await _endpoint(request, desk, endpoint_id)
            offered = await _offered(request, desk)
            return templates.refused(request, "model.html", error, **_shown(endpoint), **offered, fields=fields)
        return _list()

    @get("/{endpoint_id:str}/delete")
    async def ask_to_delete(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, endpoint_id: FromPath[str]
    ) -> Response[str]:
        """Say what becomes of an endpoint's calls before it is deleted."""
        return templates.page(request, "model_delete.html", endpoint=await _endpoint(request, desk, endpoint_id))

    @post("/{endpoint_id:str}/delete", status_code=200)
    async def delete(self, request: ManagementRequest, desk: AtDesk, endpoint_id: FromPath[str]) -> Response[None]:
        """Delete an endpoint; its slug is free again."""
        await desk.change(request.auth, lambda unit: flow.delete(unit, endpoint_id))
        return _list()

    @post("/{endpoint_id:str}/try", status_code=200)
    async def try_it(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, endpoint_id: FromPath[str]
    ) -> Response[Any]:
        """Call the model with a developer's key that was pasted, and show what came of it."""
        fields = await guard.form(request)
        endpoint = await _endpoint(request, desk, endpoint_id)
        prompt = fields.get("prompt", "").strip()[:_LONGEST_PROMPT] or "Hello"
        shown = {**await _offered(request, desk), **_shown(endpoint), "fields": _fields(endpoint), "prompt": prompt}
        try:
            answer = await desk.trial_call.make(fields.get("key", "").strip(), endpoint.slug, prompt)
        except RefusalError as error:
            return templates.refused(request, "model.html", error, **shown)
        return templates.page(request, "model.html", **shown, answer=answer, said=pages.indented(answer.body))

    @post("/secrets", status_code=200)
    async def save_secret(self, request: ManagementRequest, desk: AtDesk, templates: AtPages) -> Response[Any]:
        """Keep a secret under its name, in place of the one before."""
        fields = await guard.form(request)
        try:
            wanted = forms.body(CreateSecret, {name: fields.get(name, "") for name in ("name", "value")})
            await desk.change(request.auth, lambda unit: secrets.save(unit, desk.vault, wanted))
        except RefusalError as error:
            return templates.refused(request, "models.html", error, **await _listed(request, desk, ""))
        return _list("#secrets")

    @post("/secrets/{secret_id:str}/delete", status_code=200)
    async def delete_secret(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, secret_id: FromPath[str]
    ) -> Response[Any]:
        """Delete a secret that no endpoint names."""
        try:
            await desk.change(request.auth, lambda unit: secrets.delete(unit, secret_id))
        except RefusalError as error:
            return templates.refused(request, "models.html", error, **await _listed(request, desk, ""))
        return _list("#secrets")


def _list(part: str = "") -> Response[None]:
    return pages.moved(pages.address("models") + part)


def _shown(endpoint: Endpoint) -> dict[str, Any]:
    return {"endpoint": endpoint, "etag": preconditions.entity_tag(endpoint)}


def _fields(endpoint: Endpoint) -> dict[str, str]:
    target = endpoint.targets[0].model_dump(mode="json", exclude_none=True)
    vertex = target.pop("vertex_config", {})
    return {"slug": endpoint.slug, "region": endpoint.region.value, **target, **vertex}


async def _endpoint(request: ManagementRequest, desk: Desk, endpoint_id: str) -> Endpoint:
    caller = request.auth
    return bodies.endpoint(
        await desk.look(request.auth, lambda connection: flow.get(desk.unit(connection, caller), endpoint_id))
    )


async def _listed(request: ManagementRequest, desk: Desk, cursor: str) -> dict[str, Any]:
    workspace_id = request.auth.workspace_id

    def find(connection: Connection) -> dict[str, Any]:
        found = SqlEndpoints(connection).page(workspace_id, common.after(cursor or None), ROWS + 1, None)
        shown, following = pages.cut(found, ROWS, lambda endpoint: common.id_cursor(endpoint.record.id))
        kept = _secrets(connection, workspace_id)
        return {
            "endpoints": [bodies.endpoint(endpoint) for endpoint in shown],
            "following": following,
            "secrets": kept,
            "secret_names": {secret.record.id: secret.name for secret in kept},
            "prefixes": SqlWorkspaces(connection).org_prefixes(workspace_id),
        }

    return await desk.look(request.auth, find)


async def _offered(request: ManagementRequest, desk: Desk) -> dict[str, Any]:
    workspace_id = request.auth.workspace_id

    def find(connection: Connection) -> dict[str, Any]:
        return {
            "secrets": _secrets(connection, workspace_id),
            "prefixes": SqlWorkspaces(connection).org_prefixes(workspace_id),
        }

    return {**await desk.look(request.auth, find), "providers": list(Provider), "regions": list(Region)}


def _secrets(connection: Connection, workspace_id: str) -> list[StoredSecret]:
    return list(SqlSecrets(connection).page(workspace_id, "", _OFFERED_SECRETS))
