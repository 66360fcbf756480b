"""Queries of groups: a group's way to the root, what lies below it, pages of them."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
from pydantic import TypeAdapter
from sqlalchemy import CTE, ColumnElement, Connection, Row, Text, cast, func, insert, select, update

from control.core.records import Chain, LimitBelow, StoredGroup
from control.core.usage_lines import GroupOnTheWay
from control.store.tables import API_KEYS, GROUPS
from runtime.config import log as config_log
from runtime.database import statements
from schemas.config import ConfigKind, GroupRecord
from schemas.limits import ModelConfig

_LIVE = GROUPS.c.deleted_at.is_(None)
_LAST = "\U0010ffff"
"""The last character there is: every text that begins with another lies below that other and this."""
_MODELS = TypeAdapter(tuple[ModelConfig, ...])
_MOST_PLANS = 4096
_FIRST_READ = 4
_MOST_READ = 64


class _Limit(msgspec.Struct):
    type: str
    unit: str
    threshold: int


class _Listed(msgspec.Struct):
    """A model as it is stored, read as far as its slug."""

    slug: str
    rate_limits: msgspec.Raw = msgspec.Raw(b"[]")
    usage_limits: msgspec.Raw = msgspec.Raw(b"[]")


class SqlGroups:
    """The live groups of all workspaces, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def chain(self, group_id: str) -> Chain:
        """Return the live group and its way to the root; empty where there is none."""
        return next(iter(self._chains(self._named([group_id]))), ())

    def chains(self, group_ids: Sequence[str]) -> Sequence[Chain]:
        """Return those of the groups that are live, each with its way to the root."""
        return self._chains(self._named(group_ids))

    def below(self, group_id: str, slugs: Collection[str]) -> Iterator[LimitBelow]:
        """Return each limit that the live groups below it set on these slugs.

        A list is searched as text, one group after the other: 64 groups of 1,000 models take seconds to read as models.
        """
        below = _from(GROUPS.c.parent_group_id == group_id)
        query = select(GROUPS.c.id, cast(GROUPS.c.models, Text)).join(below, GROUPS.c.id == below.c.id)
        with self._connection.execute(query, execution_options={"yield_per": _FIRST_READ}) as rows:
            for id_, models in rows:
                for model in msgspec.json.decode(models, type=list[_Listed]):
                    if model.slug in slugs:
                        for limits in (model.rate_limits, model.usage_limits):
                            for limit in msgspec.json.decode(limits, type=list[_Limit]):
                                yield LimitBelow(id_, (model.slug, limit.type, limit.unit), limit.threshold)

    def count_below(self, group_id: str) -> int:
        """Return how many live groups are below it."""
        below = _from(GROUPS.c.parent_group_id == group_id)
        count: int = self._connection.execute(select(func.count()).select_from(below)).scalar_one()
        return count

    def external_id_owner(self, workspace_id: str, external_entity_id: str) -> str | None:
        """Return the id of the live group of the workspace that has this external id."""
        query = select(GROUPS.c.id).where(
            GROUPS.c.workspace_id == workspace_id, GROUPS.c.external_entity_id == external_entity_id, _LIVE
        )
        owner: str | None = self._connection.execute(query).scalar()
        return owner

    def add(self, group: StoredGroup) -> None:
        """Keep a new group; the change goes to the log in the same transaction."""
        record = group.record
        values = {
            "id": record.id,
            "workspace_id": record.workspace_id,
            "external_entity_id": record.external_entity_id,
            "name": group.name,
            "parent_group_id": record.parent_group_id,
            "root_id": record.ancestor_ids[-1] if record.ancestor_ids else record.id,
            "depth": len(record.ancestor_ids),
            "ancestor_ids": list(record.ancestor_ids),
            "limit_enforcement": record.limit_enforcement.value,
            "models": _models(record),
            "created_at": group.created_at,
            "updated_at": group.updated_at,
        }
        self._connection.execute(insert(GROUPS).values(values))
        config_log.append(self._connection, group.created_at, ConfigKind.GROUP, record.id, record)

    def replace(self, group: StoredGroup, before: StoredGroup) -> None:
        """Keep the new name and models of a group.

        Where its record is not as `before` the change goes to the log in the same transaction; a name is control's own.
        """
        change = update(GROUPS).where(GROUPS.c.id == group.record.id)
        values: dict[str, Any] = {"name": group.name, "updated_at": group.updated_at}
        if group.record != before.record:
            values["models"] = _models(group.record)
            config_log.append(self._connection, group.updated_at, ConfigKind.GROUP, group.record.id, group.record)
        self._connection.execute(change.values(values))

    def remove(self, group: StoredGroup, now: datetime) -> None:
        """Forget a group and all below it, and revoke their keys.

        One end goes to the log in the same transaction: who has it refuses each key whose way to the root it was on.
        """
        gone = select(_from(GROUPS.c.id == group.record.id).c.id)
        keys = update(API_KEYS).where(API_KEYS.c.group_id.in_(gone), API_KEYS.c.revoked_at.is_(None))
        self._connection.execute(keys.values(revoked_at=now))
        self._connection.execute(update(GROUPS).where(GROUPS.c.id.in_(gone)).values(deleted_at=now))
        config_log.append(self._connection, now, ConfigKind.GROUP, group.record.id, None)

    def page(self, workspace_id: str, after: str, limit: int, external_entity_id: str | None) -> Iterator[Chain]:
        """Return at most `limit` groups of the workspace with an id above `after`, by id, each with its way up.

        A few are read at a time, as they are asked for: each may list 1,000 models, and so may those above it.
        """
        query = select(GROUPS.c.id).where(GROUPS.c.workspace_id == workspace_id, GROUPS.c.id > after, _LIVE)
        if external_entity_id is not None:
            query = query.where(GROUPS.c.external_entity_id == external_entity_id)
        ids = list(self._connection.execute(query.order_by(GROUPS.c.id).limit(limit)).scalars())
        at_once = _FIRST_READ
        while ids:
            some, ids = ids[:at_once], ids[at_once:]
            yield from self._chains(sorted(self._named(some), key=lambda group: group.record.id))
            at_once = min(at_once * 2, _MOST_READ)

    def ways(self, workspace_id: str | None) -> dict[str, tuple[GroupOnTheWay, ...]]:
        """Return each group's way to the root, itself first, deleted groups too; None: of all workspaces."""
        query = select(GROUPS.c.id, GROUPS.c.external_entity_id, GROUPS.c.ancestor_ids)
        if workspace_id is not None:
            query = query.where(GROUPS.c.workspace_id == workspace_id)
        rows = self._connection.execute(query).all()
        named = {row.id: GroupOnTheWay(row.id, row.external_entity_id) for row in rows}
        return {row.id: tuple(named[id_] for id_ in (row.id, *row.ancestor_ids)) for row in rows}

    def branch(self, workspace_id: str, parent_group_id: str | None, after: str, limit: int) -> Sequence[Chain]:
        """Return at most `limit` children of a group, or roots, with an id above `after`, each with its way up."""
        query = select(GROUPS).where(
            GROUPS.c.workspace_id == workspace_id,
            GROUPS.c.parent_group_id == parent_group_id,
            GROUPS.c.id > after,
            _LIVE,
        )
        return self._chains([_read(row) for row in self._connection.execute(query.order_by(GROUPS.c.id).limit(limit))])

    def beginning_with(self, workspace_id: str, text: str, after: str, limit: int) -> Sequence[Chain]:
        """Return at most `limit` groups whose external id begins with `text`, and is above `after`, in its order."""
        name = GROUPS.c.external_entity_id
        among = (name > after) if after else (name >= text)
        query = select(GROUPS).where(GROUPS.c.workspace_id == workspace_id, among, name < text + _LAST, _LIVE)
        return self._chains([_read(row) for row in self._connection.execute(query.order_by(name).limit(limit))])

    def parents(self, group_ids: Collection[str]) -> Collection[str]:
        """Return those of the groups that have live children."""
        column = GROUPS.c.parent_group_id
        queries = [
            select(column).where(column.in_(some), _LIVE).distinct() for some in statements.chunks(list(group_ids))
        ]
        return {id_ for query in queries for id_ in self._connection.execute(query).scalars()}

    def records(self) -> Iterator[GroupRecord]:
        """Return what other processes know of all of them, parents before children, one after the other.

        Groups that list the same models share one value of them: most labs have a few plans for many customers.
        """
        read_models = lru_cache(maxsize=_MOST_PLANS)(_MODELS.validate_json)
        columns = [GROUPS.c[name] for name in GroupRecord.model_fields if name != "models"]
        query = select(*columns, cast(GROUPS.c.models, Text)).where(_LIVE).order_by(GROUPS.c.depth)
        for *own, models in self._connection.execute(query, execution_options=statements.STREAMED):
            named = dict(zip(GroupRecord.model_fields, own, strict=False))
            yield GroupRecord(**named, models=read_models(models))

    def _chains(self, groups: Sequence[StoredGroup]) -> Sequence[Chain]:
        wanted = {ancestor for group in groups for ancestor in group.record.ancestor_ids}
        ancestors = {group.record.id: group for group in self._named(sorted(wanted))}
        return [(group, *(ancestors[ancestor] for ancestor in group.record.ancestor_ids)) for group in groups]

    def _named(self, ids: Sequence[str]) -> Sequence[StoredGroup]:
        return [_read(row) for some in statements.chunks(ids) for row in self._select(some)]

    def _select(self, ids: Sequence[str]) -> Iterable[Row[Any]]:
        return self._connection.execute(select(GROUPS).where(GROUPS.c.id.in_(ids), _LIVE))


def _from(top: ColumnElement[bool]) -> CTE:
    """Return the ids of the live groups that `top` names, and of all below them."""
    found = select(GROUPS.c.id).where(top, _LIVE).cte(recursive=True)
    below = select(GROUPS.c.id).where(GROUPS.c.parent_group_id == found.c.id, _LIVE)
    return found.union_all(below)


def _models(record: GroupRecord) -> list[dict[str, Any]]:
    return [model.model_dump(mode="json") for model in record.models]


def _read(row: Row[Any]) -> StoredGroup:
    record = GroupRecord(
        id=row.id,
        workspace_id=row.workspace_id,
        external_entity_id=row.external_entity_id,
        parent_group_id=row.parent_group_id,
        ancestor_ids=row.ancestor_ids,
        limit_enforcement=row.limit_enforcement,
        models=row.models,
    )
    updated_at = row.updated_at or row.created_at  # null: not changed since before it was kept
    return StoredGroup(record=record, name=row.name, created_at=row.created_at, updated_at=updated_at)
