"""The snapshot of the configuration that requests are served from.

It is fed changes, and one with a version lower than what it holds is ignored.
"""

import logging
from datetime import datetime
from sys import intern
from typing import Protocol

from domain import limit_tree
from domain.sealing import secret_context
from proxy.core import service_accounts, targets
from proxy.core.calls import Dialect, Key, Model, Route, Unserved
from proxy.core.prices import PriceBooks
from proxy.dialects.routes import chat_completions
from proxy.dialects.routes.api import ApiRoute
from proxy.limits.days import DayLimit
from proxy.limits.windows import RateChain, WindowLimit
from runtime.config.kept import Kept
from runtime.config.newest import Newest
from runtime.vault import VaultError
from schemas.config import (
    ConfigChange,
    ConfigKind,
    EndpointRecord,
    GroupRecord,
    KeyRecord,
    PriceRecord,
    SecretRecord,
    WorkspaceRecord,
    WorkspaceState,
)
from schemas.limits import (
    ANY_SLUG,
    EffectiveModelConfig,
    EffectiveRateLimit,
    EffectiveUsageLimit,
    LimitType,
    RateLimitUnit,
)
from schemas.targets import Provider, Target
from schemas.usage import RouteName

_NOBODY = (0, "")
_NONE = ("", "")

_log = logging.getLogger(__name__)


class Opener(Protocol):
    """Opens sealed texts: `runtime.vault.Vault`."""

    def open(self, sealed: str, context: str) -> str:
        """Return the text. Raise VaultError."""


class ConfiguredDirectory:
    """Keys, endpoints and groups by what a request names; routes are worked out on first use and kept."""

    def __init__(self, places: targets.ProviderUrls, opener: Opener) -> None:
        self._places = places
        self._opener = opener
        self._workspaces: Newest[WorkspaceRecord] = Newest()
        self._endpoints: Newest[EndpointRecord] = Newest()
        self._groups: Newest[limit_tree.Node] = Newest()
        self._keys: Newest[tuple[bytes, str, str, datetime | None, bool]] = Newest()
        self._credentials: Newest[tuple[str, str]] = Newest()
        """Each secret's workspace and opened text, which is empty where it cannot be used."""
        self._by_slug: dict[str, tuple[int, str]] = {}
        """The version and id of the newest endpoint that took each slug."""
        self._routes: Kept[tuple[str, str, RouteName], Route] = Kept()
        """Each until what it depends on changes: its workspace, a group of its chain, its slug, its secret."""
        self._hosts: dict[str, str] = {}
        """Host names to the workspaces that alone are served under them."""
        self._prices: Newest[PriceRecord] = Newest()
        self._books = PriceBooks()
        self._used_keys: Kept[str, Key] = Kept()
        """Keys that were asked for, until something changes that they depend on."""

    def apply(self, change: ConfigChange) -> None:
        """Take one change of the configuration; kinds that requests do not need are ignored."""
        record = change.record
        match change.kind:
            case ConfigKind.KEY:
                # a tuple, not the record: there may be a million of them
                entry = (
                    (
                        bytes.fromhex(record.sha256),
                        intern(record.workspace_id),
                        intern(record.group_id),
                        record.expires_at,
                        record.disabled,
                    )
                    if isinstance(record, KeyRecord)
                    else None
                )
                self._keys.put(change.id, change.version, entry)
                self._used_keys.drop(change.id)
                return  # no route depends on one
            case ConfigKind.WORKSPACE:
                self._put_workspace(change, record if isinstance(record, WorkspaceRecord) else None)
            case ConfigKind.GROUP:
                node = limit_tree.Node.of(record) if isinstance(record, GroupRecord) else None
                self._groups.put(intern(change.id), change.version, node)
            case ConfigKind.ENDPOINT:
                self._put_endpoint(change, record if isinstance(record, EndpointRecord) else None)
                return  # no key depends on one
            case ConfigKind.PRICE:
                self._put_price(change, record if isinstance(record, PriceRecord) else None)
                return
            case ConfigKind.SECRET:
                self._put_secret(change, record if isinstance(record, SecretRecord) else None)
            case _:
                return
        self._routes.drop(change.id)
        self._used_keys.drop(change.id)

    @property
    def has_hosts(self) -> bool:
        """Whether any host name is a workspace's own."""
        return bool(self._hosts)

    def host_owner(self, host: str) -> str | None:
        """Return the workspace that alone is served under the host name."""
        return self._hosts.get(host)

    def key(self, prefix: str) -> Key | None:
        """Return a live key; None also where its group or an ancestor is gone, or is another workspace's."""
        used = self._used_keys.get(prefix)
        if used is not None:
            return used
        entry = self._keys.get(prefix)
        if entry is None:
            return None
        sha256, workspace_id, group_id, expires_at, disabled = entry
        workspace = self._workspaces.get(workspace_id)
        chain = self._chain(group_id)
        if workspace is None or not chain or chain[0].workspace_id != workspace_id:
            return None
        suspended = workspace.state is WorkspaceState.SUSPENDED
        key = Key(prefix, sha256, workspace_id, group_id, suspended, expires_at, disabled)
        self._used_keys.keep(prefix, key, (prefix, workspace_id, *(group.id for group in chain)))
        return key

    def route(self, key: Key, slug: str, api: ApiRoute = chat_completions.ROUTE) -> Route | Unserved | None:
        """Return the route of a key's group to a slug; None where there is none or the key may not call it so."""
        name = (key.group_id, slug, api.name)
        kept = self._routes.get(name)
        if kept is not None:
            return kept
        route = self._work_out(key, slug, api)
        if isinstance(route, Route):  # else not kept: anyone could fill the memory with slugs that are not there
            sources = (route.workspace_id, route.group_id, *route.parent_groups, slug, self._secret_of(slug))
            self._routes.keep(name, route, sources)
        return route

    def models(self, key: Key) -> list[Model]:
        """Return the models that a key may call, in the order its groups list them."""
        slugs = limit_tree.callable_slugs(self._chain(key.group_id))
        found = (self._endpoint(slug, key.workspace_id) for slug in slugs)
        return [Model(endpoint.slug, endpoint.created_at) for endpoint in found if endpoint is not None]

    def _put_workspace(self, change: ConfigChange, record: WorkspaceRecord | None) -> None:
        before = self._workspaces.get(change.id)
        if not self._workspaces.put(change.id, change.version, record):
            return
        for host in before.hosts if before is not None else ():
            if self._hosts.get(host) == change.id:
                del self._hosts[host]
        for host in record.hosts if record is not None else ():
            self._hosts[host] = change.id

    def _put_endpoint(self, change: ConfigChange, record: EndpointRecord | None) -> None:
        before = self._endpoints.get(change.id)
        if not self._endpoints.put(change.id, change.version, record):
            return
        if before is not None and self._by_slug.get(before.slug, _NOBODY)[1] == change.id:
            del self._by_slug[before.slug]
        if record is not None and self._by_slug.get(record.slug, _NOBODY)[0] < change.version:
            self._by_slug[record.slug] = (change.version, change.id)
        for endpoint in (before, record):
            if endpoint is not None:
                self._routes.drop(endpoint.slug)

    def _put_price(self, change: ConfigChange, record: PriceRecord | None) -> None:
        before = self._prices.get(change.id)
        if self._prices.put(change.id, change.version, record):
            for slug in self._books.replace(change.id, before, record):
                self._routes.drop(slug)

    def _chain(self, group_id: str) -> limit_tree.Chain:
        return limit_tree.chain(group_id, self._groups.get)

    def _endpoint(self, slug: str, workspace_id: str) -> EndpointRecord | None:
        endpoint = self._endpoints.get(self._by_slug.get(slug, _NOBODY)[1])
        return endpoint if endpoint is not None and endpoint.workspace_id == workspace_id else None

    def _secret_of(self, slug: str) -> str:
        endpoint = self._endpoints.get(self._by_slug.get(slug, _NOBODY)[1])
        return slug if endpoint is None or endpoint.target.secret_id is None else endpoint.target.secret_id

    def _put_secret(self, change: ConfigChange, record: SecretRecord | None) -> None:
        if self._credentials.is_new(change.id, change.version):
            credential = None if record is None else (record.workspace_id, self._opened(record))
            self._credentials.put(change.id, change.version, credential)

    def _opened(self, secret: SecretRecord) -> str:
        """Open a secret once for all its calls: one that cannot be used must not stop the other labs'."""
        try:
            text = self._opener.open(secret.sealed, secret_context(secret.workspace_id, secret.id)).strip()
        except VaultError as error:
            _log.error("workspace %s: the secret %s cannot be used: %s", secret.workspace_id, secret.id, error)
            return ""
        return text if text.isascii() else ""

    def _credential(self, target: Target, workspace_id: str) -> str | Unserved | None:
        if target.secret_id is not None:
            owner, text = self._credentials.get(target.secret_id) or _NONE
            return (_usable(text, target) if owner == workspace_id else None) or Unserved.CREDENTIAL
        workspace = self._workspaces.get(workspace_id)
        if target.provider is Provider.BASETEN and workspace is not None and workspace.operator_credential:
            return self._places.baseten_credential
        return None

    def _work_out(self, key: Key, slug: str, api: ApiRoute) -> Route | Unserved | None:
        endpoint = self._endpoint(slug, key.workspace_id)
        chain = self._chain(key.group_id)
        model = limit_tree.effective_model(chain, slug) if chain else None
        if endpoint is None or model is None or endpoint.target.provider not in api.providers:
            return None
        credential = self._credential(endpoint.target, key.workspace_id)
        if isinstance(credential, Unserved):
            return credential
        limits, days = _limits_of(chain, model, api)
        over_all = limit_tree.effective_model(chain, ANY_SLUG)
        if over_all is not None:
            more = _limits_of(chain, over_all, api)
            limits, days = limits + more[0], days + more[1]
        rates = tuple(limit for limit in limits if limit.unit is not RateLimitUnit.CONCURRENT)
        return Route(
            slug=slug,
            workspace_id=key.workspace_id,
            group_id=key.group_id,
            external_entity_id=chain[0].external_entity_id,
            charged_groups=limit_tree.charged_groups(chain),
            url=targets.url(endpoint.target, self._places, api.upstream_path, api.name),
            by_operator=targets.is_by_operator(endpoint.target),
            target_model=endpoint.target.target_model,
            credential=credential,
            stored_metadata_only=endpoint.target.provider is Provider.OPENAI,
            day_limits=days,
            rates=RateChain(chain[-1].id, slug, rates),
            concurrent=tuple(limit for limit in limits if limit.unit is RateLimitUnit.CONCURRENT),
            max_output_tokens=endpoint.max_output_tokens,
            upstream_objects=bool(endpoint.upstream_objects),
            dialect=targets.dialect(endpoint.target, api.name),
            name=api.name,
            parent_groups=tuple(group.id for group in chain[1:]),
            tariff=self._books.tariff(key.workspace_id, slug, chain[0].external_entity_id),
        )


def _limits_of(
    chain: limit_tree.Chain, model: EffectiveModelConfig, api: ApiRoute
) -> tuple[tuple[WindowLimit, ...], tuple[DayLimit, ...]]:
    """Return those of a slug's limits, or of `*`, that bind calls of a route."""
    over_all = model.slug == ANY_SLUG

    def binds(limit: EffectiveRateLimit | EffectiveUsageLimit) -> bool:
        return api.token_limits_bind or limit.type in {LimitType.REQUEST, LimitType.COST}

    def counting(limit: EffectiveRateLimit | EffectiveUsageLimit) -> tuple[int, str, str]:
        return limit.threshold, limit.source_group, limit_tree.counting_group(chain, limit)

    rates = [limit for limit in model.rate_limits if binds(limit)]
    usages = [limit for limit in model.usage_limits if binds(limit)]
    return (
        tuple(WindowLimit(limit.type, limit.unit, *counting(limit), over_all=over_all) for limit in rates),
        tuple(DayLimit(limit.type, *counting(limit), over_all=over_all, unit=limit.unit) for limit in usages),
    )


def _usable(secret: str, target: Target) -> str | None:
    """Return a secret's text as the target's calls need it; None where it is nothing of the kind."""
    if targets.dialect(target) is Dialect.VERTEX:
        return service_accounts.canonical(secret)
    return secret if secret.isprintable() else None  # it goes into a header
