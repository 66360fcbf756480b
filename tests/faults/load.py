"""Mixed load on a gateway that may die at any moment, and what its clients saw of it."""

import asyncio
import json
import random
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import httpx

from tests.faults import scene as scenes

CLIENTS = 12


@dataclass
class Seen:
    """Ids of requests, by how they ended for the client."""

    whole: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Answers read to their last byte, with the tokens where they told them."""
    left: set[str] = field(default_factory=set)
    """Streams the client walked away from."""
    refused: int = 0


class Crowd:
    """Clients that call, stream, hang up and run into a rate limit until they are told to stop."""

    def __init__(self, url: str, key: str, limited_key: str, rng: random.Random) -> None:
        self.seen = Seen()
        self._url = url
        self._keys = (key, limited_key)
        self._rng = rng
        self._stopped = False

    async def run(self, seconds: float) -> None:
        """Keep going for so long; the gateway must be killed before `leave`."""
        limits = httpx.Limits(max_connections=2 * CLIENTS)
        self._client = httpx.AsyncClient(timeout=scenes.WITHIN_S, limits=limits)
        self._tasks = [asyncio.create_task(self._go_on()) for _ in range(CLIENTS)]
        await asyncio.sleep(seconds)

    async def leave(self) -> Seen:
        """Wait for the clients, whose calls end with the gateway; return what they saw."""
        self._stopped = True
        await asyncio.gather(*self._tasks)
        await self._client.aclose()
        return self.seen

    async def _go_on(self) -> None:
        behaviours = (self._plain, self._stream, self._walk_away, self._give_up, self._run_into_limit)
        while not self._stopped:
            (behave,) = self._rng.choices(behaviours, weights=(40, 30, 12, 8, 10))
            try:
                await behave()
            except httpx.TransportError:  # the gateway died, or the client gave up
                await asyncio.sleep(0.005)

    async def _plain(self) -> None:
        answer = await self._client.post(self._url, headers=self._headers(), json=scenes.asking(stream=False))
        self._keep(answer)

    async def _stream(self) -> None:
        async with self._streaming() as answer:
            await answer.aread()
        if answer.content.endswith(b"data: [DONE]\n\n"):
            self._keep(answer)

    async def _walk_away(self) -> None:
        chunks = self._rng.randrange(4)
        async with self._streaming() as answer:
            async for _ in answer.aiter_raw():
                chunks -= 1
                if chunks < 0:
                    break
            self.seen.left.add(answer.headers["x-request-id"])

    async def _give_up(self) -> None:
        body = scenes.asking(stream=False)
        await self._client.post(self._url, headers=self._headers(), json=body, timeout=self._rng.uniform(0.001, 0.08))

    async def _run_into_limit(self) -> None:
        headers = scenes.authorized(self._keys[1])
        answer = await self._client.post(self._url, headers=headers, json=scenes.asking(stream=False))
        if answer.status_code == 429:
            self.seen.refused += 1
            await asyncio.sleep(0.01)
        else:
            self._keep(answer)

    def _streaming(self) -> AbstractAsyncContextManager[httpx.Response]:
        body = scenes.asking(stream=True)
        return self._client.stream("POST", self._url, headers=self._headers(), json=body)

    def _headers(self) -> dict[str, str]:
        return scenes.authorized(self._keys[0])

    def _keep(self, answer: httpx.Response) -> None:
        assert answer.status_code == 200, answer.text
        tokens = (-1, -1)
        if answer.headers["content-type"] == "application/json":
            usage = json.loads(answer.content)["usage"]
            tokens = (usage["prompt_tokens"], usage["completion_tokens"])
        self.seen.whole[answer.headers["x-request-id"]] = tokens
