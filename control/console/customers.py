"""Pages of the customers: the tree of groups, and what makes, changes and deletes one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from litestar import Controller, Response, get, post
from litestar.params import FromPath, FromQuery
from sqlalchemy import Connection

from control.api import common
from control.api.common import AtDesk, Desk, ManagementRequest
from control.console import forms, guard, pages
from control.console.sign_in import AtPages
from control.core import bodies, preconditions
from control.core.records import Chain
from control.core.refusals import RefusalError
from control.flow import groups as flow
from control.flow import usage
from control.store.api_keys import SqlApiKeys
from control.store.endpoints import SqlEndpoints
from control.store.groups import SqlGroups
from metering.store import key_usage, transaction
from schemas.api import CreateGroup, Group, GroupUsage, UpdateGroup
from schemas.limits import LimitEnforcement

ROWS = 50
_OFFERED_SLUGS = 1000


class _PageStart(NamedTuple):
    """Where a page of a search ended."""

    external_entity_id: str


@dataclass(frozen=True, slots=True)
class CustomerRow:
    """A group in a list."""

    group: Group
    has_children: bool
    fullest: tuple[str, int, int] | None
    """The usage limit that is used up most: what it is, how much is used, and its threshold."""


class CustomerController(Controller):
    """``/console/customers``."""

    path = "/customers"

    @get()
    async def show(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        templates: AtPages,
        q: FromQuery[str] = "",
        cursor: FromQuery[str] = "",
    ) -> Response[str]:
        """List the roots, or the groups whose external id begins with `q`."""
        caller, text = request.auth, q.strip()[:255]

        def find(connection: Connection) -> tuple[list[CustomerRow], str | None]:
            if not text:
                return _branch(connection, desk, caller.workspace_id, None, cursor)
            after = common.read_cursor(cursor, _PageStart).external_entity_id if cursor else ""
            found = SqlGroups(connection).beginning_with(caller.workspace_id, text, after, ROWS + 1)
            shown, following = pages.cut(found, ROWS, _place)
            return _rows(connection, desk, shown), following

        rows, following = await desk.look(request.auth, find)
        part = "customers_found.html" if request.headers.get("hx-target") == "found" else "customers.html"
        return templates.page(request, part, rows=rows, following=following, q=text, parent=None)

    @get("/{group_id:str}/children")
    async def children(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        templates: AtPages,
        group_id: FromPath[str],
        cursor: FromQuery[str] = "",
    ) -> Response[str]:
        """List the children of one group, as a part of the tree."""
        caller = request.auth

        def find(connection: Connection) -> tuple[list[CustomerRow], str | None]:
            flow.get(desk.unit(connection, caller), group_id)
            return _branch(connection, desk, caller.workspace_id, group_id, cursor)

        rows, following = await desk.look(request.auth, find)
        return templates.page(request, "customers_rows.html", rows=rows, following=following, parent=group_id, q="")

    @get("/new")
    async def ask(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, parent: FromQuery[str] = ""
    ) -> Response[str]:
        """Show the form of a new group."""
        return templates.page(request, "customer_new.html", **await _offered(request, desk, parent), fields={})

    @post("/new", status_code=200)
    async def create(self, request: ManagementRequest, desk: AtDesk, templates: AtPages) -> Response[Any]:
        """Make a group."""
        fields = await guard.form(request)
        hierarchy = forms.given(fields, "limit_enforcement", "parent_group_id")
        values = {"metadata": forms.given(fields, "name", "external_entity_id"), "models": forms.models(fields)}
        try:
            wanted = forms.body(CreateGroup, values | ({"hierarchy": hierarchy} if hierarchy else {}))
            made = await desk.change(request.auth, lambda unit: flow.create(unit, wanted))
        except RefusalError as error:
            offered = await _offered(request, desk, fields.get("parent_group_id", ""))
            return templates.refused(request, "customer_new.html", error, **offered, fields=fields)
        return _group_page(made[0].record.id)

    @get("/{group_id:str}")
    async def one(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, group_id: FromPath[str]
    ) -> Response[str]:
        """Show one group: what holds for it and where it comes from, its keys, its children."""
        return templates.page(request, "customer.html", **await found(request, desk, group_id))

    @post("/{group_id:str}", status_code=200)
    async def change(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, group_id: FromPath[str]
    ) -> Response[Any]:
        """Change a group's name and its whole set of models, if nobody changed it meanwhile."""
        fields = await guard.form(request)
        try:
            values = {"metadata": {"name": fields.get("name", "").strip() or None}, "models": forms.models(fields)}
            wanted = forms.body(UpdateGroup, values)
            await desk.change(
                request.auth, lambda unit: flow.update(unit, group_id, wanted), if_match=fields.get("etag")
            )
        except RefusalError as error:
            shown = await found(request, desk, group_id)
            return templates.refused(request, "customer.html", error, **shown | {"fields": fields})
        return _group_page(group_id)

    @get("/{group_id:str}/delete")
    async def ask_to_delete(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, group_id: FromPath[str]
    ) -> Response[str]:
        """Say what goes with a group before it is deleted."""
        caller = request.auth

        def find(connection: Connection) -> tuple[Group, int]:
            chain = flow.get(desk.unit(connection, caller), group_id)
            return bodies.group(chain), SqlGroups(connection).count_below(group_id)

        group, below = await desk.look(request.auth, find)
        return templates.page(request, "customer_delete.html", group=group, below=below)

    @post("/{group_id:str}/delete", status_code=200)
    async def delete(self, request: ManagementRequest, desk: AtDesk, group_id: FromPath[str]) -> Response[None]:
        """Delete a group and all below it."""
        gone = await desk.change(request.auth, lambda unit: flow.delete(unit, group_id))
        parent = gone.record.parent_group_id
        return _group_page(parent) if parent else pages.moved(pages.address("customers"))


async def found(request: ManagementRequest, desk: Desk, group_id: str) -> dict[str, Any]:
    """Return what the page of a group shows. Raise NotFoundError or ForbiddenError."""
    caller = request.auth

    def find(connection: Connection) -> dict[str, Any]:
        chain = flow.get(desk.unit(connection, caller), group_id)
        keys = SqlApiKeys(connection).page(group_id, "", ROWS + 1)
        last = key_usage.last_used(connection, group_id, [key.record.prefix for key in keys])
        rows, following = _branch(connection, desk, caller.workspace_id, group_id, "")
        group = bodies.group(chain)
        return {
            "group": group,
            "etag": preconditions.entity_tag(group),
            "above": [bodies.group(chain[at:]) for at in range(len(chain) - 1, 0, -1)],
            "used": _used(connection, desk, chain),
            "ceilings": _ceilings(chain),
            "keys": [bodies.api_key(key, last.get(key.record.prefix)) for key in keys[:ROWS]],
            "more_keys": len(keys) > ROWS,
            "rows": rows,
            "following": following,
            "kinds": forms.KINDS,
            "slugs": _slugs(connection, caller.workspace_id),
        }

    return {**await desk.look(request.auth, find), "fields": {}, "parent": group_id, "q": "", "now": desk.clock()}


def _group_page(group_id: str) -> Response[None]:
    return pages.moved(pages.address("customers", group_id))


async def _offered(request: ManagementRequest, desk: Desk, parent: str) -> dict[str, Any]:
    caller = request.auth

    def find(connection: Connection) -> tuple[list[str], Group | None]:
        chain = flow.get(desk.unit(connection, caller), parent) if parent else ()
        return _slugs(connection, caller.workspace_id), bodies.group(chain) if chain else None

    slugs, group = await desk.look(request.auth, find)
    return {"slugs": slugs, "above": group, "kinds": forms.KINDS, "modes": list(LimitEnforcement)}


def _slugs(connection: Connection, workspace_id: str) -> list[str]:
    found = SqlEndpoints(connection).page(workspace_id, "", _OFFERED_SLUGS, None)
    return sorted(endpoint.record.slug for endpoint in found)


def _branch(
    connection: Connection, desk: Desk, workspace_id: str, parent: str | None, cursor: str
) -> tuple[list[CustomerRow], str | None]:
    found = SqlGroups(connection).branch(workspace_id, parent, common.after(cursor or None), ROWS + 1)
    shown, following = pages.cut(found, ROWS, lambda chain: common.id_cursor(chain[0].record.id))
    return _rows(connection, desk, shown), following


def _place(chain: Chain) -> str:
    return common.cursor_of(_PageStart(chain[0].record.external_entity_id))


def _rows(connection: Connection, desk: Desk, chains: Sequence[Chain]) -> list[CustomerRow]:
    having = SqlGroups(connection).parents([chain[0].record.id for chain in chains])
    return [
        CustomerRow(bodies.group(chain), chain[0].record.id in having, _fullest(_used(connection, desk, chain)))
        for chain in chains
    ]


def _used(connection: Connection, desk: Desk, chain: Chain) -> GroupUsage:
    return usage.usage(chain, partial(transaction.limit_totals, connection), desk.clock().date())


def _fullest(used: GroupUsage) -> tuple[str, int, int] | None:
    shares = [
        (pages.share(limit.current_usage, limit.threshold), slug, limit)
        for slug, limits in used.usage.items()
        for limit in limits
    ]
    if not shares:
        return None
    _, slug, limit = max(shares, key=lambda one: one[0])
    what = f"{slug}: {pages.words(limit.type.value)}s per {pages.words(limit.unit.value)}"
    return what, limit.current_usage or 0, limit.threshold


def _ceilings(chain: Chain) -> dict[tuple[str, str], tuple[int, str]]:
    """Return the lowest ancestors' limit by slug and kind, and who sets it: a CASCADING child may not exceed it."""
    lowest: dict[tuple[str, str], tuple[int, str]] = {}
    if chain[0].record.limit_enforcement is not LimitEnforcement.CASCADING:
        return lowest
    for ancestor in chain[1:]:
        for model in ancestor.record.models:
            for part, limits in (("rate_limits", model.rate_limits), ("usage_limits", model.usage_limits)):
                for limit in limits:
                    place = (model.slug, f"{part}:{limit.type.value}:{limit.unit.value}")
                    ceiling = (limit.threshold, ancestor.record.external_entity_id)
                    lowest[place] = min(lowest.get(place, ceiling), ceiling)
    return lowest
