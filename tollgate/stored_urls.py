"""Judges the URLs that labs have stored by the present settings, as a proxy and a dispatcher do at each call."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from control.store.endpoints import SqlEndpoints
from control.store.workspaces import SqlWebhooks, SqlWorkspaces
from runtime import settings, ssrf_guard
from runtime.settings import Settings

_LISTED = 20
_LOOKED_UP = 100
_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A URL that calls go to, what it belongs to, and the setting that allows it to be private."""

    owner: str
    url: str
    allowed_by: str


def read(connection: Connection) -> Sequence[Stored]:
    """Return the base URL of each endpoint that has one, and the URL of each webhook that is enabled."""
    return list(_stored(connection))


def refused(
    loaded: Settings, stored: Sequence[Stored], resolver: ssrf_guard.Resolver = ssrf_guard.look_up
) -> Sequence[str]:
    """Return a line for each URL that is refused, at most 20 and one that counts the rest.

    A name that cannot be looked up within 5 s in all, or that comes after the first 100 names, is judged by its form.
    """
    judged = [one for one in stored if not getattr(loaded, one.allowed_by)]
    reasons = {one: reason for one in judged if (reason := _form(one.url))}
    left = [one for one in judged if one not in reasons]
    hosts = asyncio.run(_private_hosts([_host(one.url) for one in left], resolver))
    reasons |= {one: hosts[_host(one.url)] for one in left if _host(one.url) in hosts}
    lines = [_line(one, reasons[one]) for one in judged if one in reasons]
    rest = len(lines) - _LISTED
    return [*lines[:_LISTED], *([f"and {rest} more"] if rest > 0 else [])]


def _stored(connection: Connection) -> Iterator[Stored]:
    names = {one.id: one.name for one in SqlWorkspaces(connection).every()}
    for endpoint in SqlEndpoints(connection).every():
        record = endpoint.record
        if record.target.base_url is not None:
            owner = f"endpoint {record.slug} of workspace {names[record.workspace_id]}"
            yield Stored(owner, record.target.base_url, "allow_private_upstreams")
    for webhook in SqlWebhooks(connection).every():
        if webhook.url is not None and webhook.enabled:
            yield Stored(f"webhook of workspace {names[webhook.workspace_id]}", webhook.url, "allow_private_receivers")


def _form(url: str) -> str | None:
    try:
        ssrf_guard.parse_url(url, allow_private=False)
    except ssrf_guard.AddressRefusedError as error:
        return str(error)
    return None


def _host(url: str) -> str:
    return ssrf_guard.parse_url(url, allow_private=False).host


def _line(one: Stored, reason: str) -> str:
    variable = settings.variable(one.allowed_by)
    return f"{one.owner} is refused: {reason}; set {variable}=true wherever `tollgate` runs, or have the lab change it"


async def _private_hosts(hosts: Sequence[str], resolver: ssrf_guard.Resolver) -> Mapping[str, str]:
    """Return why a host is refused, for those that are."""
    found: dict[str, str] = {}

    async def judge(host: str) -> None:
        try:
            await ssrf_guard.resolve(host, 443, allow_private=False, resolver=resolver)
        except ssrf_guard.AddressRefusedError as error:
            found[host] = error.detail
        except OSError:
            pass  # not known here, which need not be so where the proxies run

    looks = [asyncio.create_task(judge(host)) for host in list(dict.fromkeys(hosts))[:_LOOKED_UP]]
    if looks:
        done, late = await asyncio.wait(looks, timeout=_WITHIN_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for task in done:
            task.result()
    return found
