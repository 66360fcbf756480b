"""Reads requests and answers: small ones at once, larger ones in a thread, the largest in a process beside this one.

What is larger than `HEAP_BYTES` lies in a file in memory, which that process reads and writes: none is copied here.

A decoder in C keeps the interpreter to itself until it is done, in a thread too: so what is larger than `AT_ONCE_BYTES`
is not decoded in the event loop, and what is larger than `HEAP_BYTES` not in this process.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import msgspec
from msgspec.structs import replace

from proxy.core.calls import Route
from proxy.dialects import media, upstream_objects
from proxy.dialects.answers import Plain
from proxy.dialects.chat import ChatRequest, Invalid
from proxy.dialects.media import Costs
from proxy.dialects.routes import table
from proxy.dialects.routes.api import ApiRoute
from proxy.limits import estimate
from runtime.beside import Beside
from runtime.memory_files import Body, FilePlace, MemoryFile
from schemas.usage import RouteName

AT_ONCE_BYTES = 256 * 1024
_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")


class Read(msgspec.Struct, frozen=True):
    """What is known of a request's body."""

    request: ChatRequest
    prompt_bound: int
    """`estimate.prompt_bound` of it."""
    prompt_tokens: int | None = None
    """What would be billed without counts, where that was made already: of large ones, whose body is given up early."""
    upstream_object: str | None = None
    """The first member that names an object at the upstream."""


class Large:
    """Reads bodies of any size."""

    def __init__(self, beside: Beside, costs: Costs = media.USUAL, at_once_bytes: int = AT_ONCE_BYTES) -> None:
        self._beside = beside
        self.costs = costs
        self._at_once_bytes = at_once_bytes

    async def close(self) -> None:
        """End the process beside."""
        await self._beside.close()

    async def request(self, api: ApiRoute, body: Body) -> Read | Invalid:
        """Return what is known of a request, or why it is refused."""
        if isinstance(body, MemoryFile):
            return await self._apart(request_apart, api.name, body.place, self.costs)
        if len(body) <= self._at_once_bytes:
            return _request(api, body)
        return await asyncio.to_thread(_counted, api, body, self.costs)

    async def for_upstream(self, api: ApiRoute, body: MemoryFile, read: Read, route: Route) -> Read:
        """Return what was read of a body with what goes upstream. Nothing more can be done with `body`."""
        asked, made = read.request, MemoryFile()
        is_new = not api.is_opaque and await self._apart(
            rewritten_apart, api.name, asked, route.target_model, route.stored_metadata_only, body.place, made.place
        )
        return replace(read, request=replace(asked, upstream_body=made.content() if is_new else body.content()))

    async def answer(self, api: ApiRoute, body: Body, slug: str) -> Plain:
        """Return what a whole answer says. Nothing more can be done with `body`."""
        if isinstance(body, MemoryFile):
            named = MemoryFile()
            told = await self._apart(answer_apart, api.name, slug, body.place, named.place)
            return replace(told, large=named.content())
        if len(body) <= self._at_once_bytes:
            return api.plain(body, slug)
        return await asyncio.to_thread(api.plain, body, slug)

    async def _apart(self, work: Callable[[*_Args], _Result], *args: *_Args) -> _Result:
        try:
            return await self._beside.run(work, *args)
        except OSError:  # where processes may not see each other's files
            return await asyncio.to_thread(work, *args)


def request_apart(name: RouteName, place: FilePlace, costs: Costs) -> Read | Invalid:
    """Read a request in the process beside; nothing that may be large is sent back."""
    read = _counted(table.ROUTES[name], place.read(), costs)
    return read if isinstance(read, Invalid) else replace(read, request=replace(read.request, body=b"", further={}))


def rewritten_apart(  # noqa: PLR0917 - what crosses to another process has no names
    name: RouteName,
    asked: ChatRequest,
    target_model: str | None,
    stored_metadata_only: bool,
    body: FilePlace,
    made: FilePlace,
) -> bool:
    """Write what goes upstream of a request that was read; return False where that is what came."""
    asked = replace(asked, body=body.read())  # which fails where it was given up, but its end was not told
    upstream_body = table.ROUTES[name].upstream_body(asked, target_model, stored_metadata_only=stored_metadata_only)
    is_new = upstream_body != asked.body
    if is_new:
        made.write(upstream_body)
        body.give_up()
    return is_new


def answer_apart(name: RouteName, slug: str, body: FilePlace, named: FilePlace) -> Plain:
    """Read an answer in the process beside, and write it as the client may see it; its body is not sent back."""
    told = table.ROUTES[name].plain(body.read(), slug)
    named.write(told.body)
    body.give_up()
    return replace(told, body=b"")


def _counted(api: ApiRoute, body: bytes, costs: Costs) -> Read | Invalid:
    read = _request(api, body)
    if isinstance(read, Invalid) or api.is_opaque:
        return read
    return replace(read, prompt_tokens=api.prompt_tokens(body, otherwise=max(1, read.prompt_bound), costs=costs))


def _request(api: ApiRoute, body: bytes) -> Read | Invalid:
    asked = api.parse(body)
    if isinstance(asked, Invalid):
        return asked
    bound = estimate.prompt_bound(asked.body, asked.token_ids)
    return Read(asked, bound, upstream_object=upstream_objects.named(body))
