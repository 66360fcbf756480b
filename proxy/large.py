"""Reads requests and answers: small ones at once, larger ones in a thread, the largest in a process beside this one.

Never lets one body hold the event loop for longer than it takes to read `AT_ONCE_BYTES`: a decoder in C keeps the
interpreter to itself until it is done, in a thread too.
"""

import asyncio

import msgspec
from msgspec.structs import replace

from proxy.dialects import media, upstream_objects
from proxy.dialects.answers import Plain
from proxy.dialects.chat import ChatRequest, Invalid
from proxy.dialects.media import Costs
from proxy.dialects.routes import table
from proxy.dialects.routes.api import ApiRoute
from proxy.limits import estimate
from runtime.beside import Beside
from schemas.usage import RouteName

AT_ONCE_BYTES = 256 * 1024
IN_THREAD_BYTES = 1024 * 1024
"""A body of up to this keeps the interpreter for five milliseconds; to hand it to another process takes one."""


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

    def request_at_once(self, api: ApiRoute, body: bytes) -> Read | Invalid | None:
        """Return what is known of a request, or why it is refused; None: it is too large to be read at once."""
        return _request(api, body) if len(body) <= self._at_once_bytes else None

    async def request(self, api: ApiRoute, body: bytes) -> Read | Invalid:
        """Return the same of one of any size."""
        read = self.request_at_once(api, body)
        if read is not None:
            return read
        if len(body) <= IN_THREAD_BYTES:
            return await asyncio.to_thread(_counted, api, body, self.costs)
        read = await self._beside.run(request_apart, api.name, body, self.costs)
        return read if isinstance(read, Invalid) else replace(read, request=replace(read.request, body=body))

    async def answer(self, api: ApiRoute, body: bytes, slug: str) -> Plain:
        """Return what a whole answer says."""
        if len(body) <= self._at_once_bytes:
            return api.plain(body, slug)
        if len(body) <= IN_THREAD_BYTES:
            return await asyncio.to_thread(api.plain, body, slug)
        return await self._beside.run(answer_apart, api.name, body, slug)


def request_apart(name: RouteName, body: bytes, costs: Costs) -> Read | Invalid:
    """Read a request in the process beside; its body is not sent back."""
    read = _counted(table.ROUTES[name], body, costs)
    return read if isinstance(read, Invalid) else replace(read, request=replace(read.request, body=b""))


def answer_apart(name: RouteName, body: bytes, slug: str) -> Plain:
    """Read an answer in the process beside."""
    return table.ROUTES[name].plain(body, slug)


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
