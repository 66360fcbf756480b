"""Developers of many groups who call two proxies, plain and streamed, and go to the other one when theirs is gone."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import aiohttp

SLUG = "lab/model"
AT_ONCE = 24
_PLAIN = b'{"model":"lab/model","messages":[{"role":"user","content":"How are you?"}]}'
_STREAMED = _PLAIN[:-1] + b',"stream":true}'
_PAUSE_S = 0.1
_WITHIN = aiohttp.ClientTimeout(60)


@dataclass
class Seen:
    """What the developers saw, by request id."""

    whole: set[str] = field(default_factory=set)
    """Answers that were read to their last byte."""
    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    """Calls that ended without an answer: their proxy was gone."""


class Crowd:
    """Makes `total` calls that succeed, spread over `keys`; every other one is streamed."""

    def __init__(self, proxies: Callable[[], Sequence[str]], keys: Sequence[str], total: int) -> None:
        """`proxies` gives their URLs of the moment: one that was replaced has another."""
        self.seen = Seen()
        self._proxies = proxies
        self._keys = keys
        self._total = total
        self._begun = 0

    @property
    def done(self) -> int:
        """How many calls have succeeded."""
        return len(self.seen.whole)

    async def run(self) -> None:
        """Return when all have succeeded."""
        async with aiohttp.ClientSession(timeout=_WITHIN) as client, asyncio.TaskGroup() as tasks:
            for number in range(AT_ONCE):
                tasks.create_task(self._work(client, cycle((number % 2, 1 - number % 2))))

    async def _work(self, client: aiohttp.ClientSession, turns: Iterator[int]) -> None:
        while self._begun < self._total:
            number, self._begun = self._begun, self._begun + 1
            while not await self._call(client, self._proxies()[next(turns)], number):  # noqa: ASYNC110 (it calls again)
                await asyncio.sleep(_PAUSE_S)

    async def _call(self, client: aiohttp.ClientSession, proxy: str, number: int) -> bool:
        streamed = number % 2 == 1
        headers = {"authorization": f"Api-Key {self._keys[number % len(self._keys)]}"}
        asked = _STREAMED if streamed else _PLAIN
        try:
            async with client.post(f"{proxy}/v1/chat/completions", headers=headers, data=asked) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            self.seen.broken += 1
            return False
        self.seen.statuses[answer.status] += 1
        if answer.status != 200 or (streamed and not body.endswith(b"data: [DONE]\n\n")):
            return False
        self.seen.whole.add(answer.headers["x-request-id"])
        return True
