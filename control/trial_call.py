"""Calls a model as a developer does, with a developer's key that a person pasted: an ordinary, billed call.

Never calls another address than the operator's settings name. The key is not kept.
"""

import asyncio
import time
from dataclasses import dataclass

import httpx

from control.core.refusals import InvalidError, OverloadedError
from runtime.settings import Settings, variable

WITHIN_S = 30.0
MOST_BYTES = 64 * 1024
"""Of an answer; what is behind is not read."""

_LONGEST_KEY = 512
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 (what a server listens on is no place to call)


@dataclass(frozen=True, slots=True)
class TrialAnswer:
    """What a call was answered; status 0: nothing, and `body` says why."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str
    duration_ms: int

    @property
    def request_id(self) -> str | None:
        """Return the id by which the request is found."""
        return next((value for name, value in self.headers if name == "x-request-id"), None)


class TrialCall:
    """Makes such calls, one at a time in a process."""

    def __init__(self, settings: Settings) -> None:
        self._place = place(settings)
        self._one_at_a_time = asyncio.Lock()

    async def make(self, key: str, slug: str, prompt: str) -> TrialAnswer:
        """Call once. Raise InvalidError where it cannot be called, OverloadedError where another call is under way."""
        if not (key.isascii() and key.isprintable() and 0 < len(key) <= _LONGEST_KEY and " " not in key):
            raise InvalidError("key: must be a developer's key", param="key")
        if self._place is None:
            name = variable("inference_url")
            raise InvalidError(f"this server does not know where developers' calls go; its operator sets {name}")
        if self._one_at_a_time.locked():
            raise OverloadedError("another trial is under way; send it again in a moment")
        async with self._one_at_a_time:
            began = time.monotonic()
            try:
                async with asyncio.timeout(WITHIN_S):
                    status, headers, body = await self._sent(self._place, key, slug, prompt)
            except (httpx.HTTPError, TimeoutError) as error:
                status, headers, body = 0, (), f"no answer within {WITHIN_S:.0f} s: {type(error).__name__}"
        return TrialAnswer(status, headers, body, round((time.monotonic() - began) * 1000))

    async def _sent(self, place: str, key: str, slug: str, prompt: str) -> tuple[int, tuple[tuple[str, str], ...], str]:
        asked = {"model": slug, "messages": [{"role": "user", "content": prompt}]}
        header = {"authorization": f"Api-Key {key}"}
        async with (
            httpx.AsyncClient(timeout=WITHIN_S, trust_env=False) as client,
            client.stream("POST", f"{place}/v1/chat/completions", json=asked, headers=header) as answer,
        ):
            body = b""
            async for part in answer.aiter_bytes(MOST_BYTES):
                body += part
                if len(body) >= MOST_BYTES:
                    break
        text = body[:MOST_BYTES].decode("utf-8", "replace")
        return answer.status_code, tuple(answer.headers.items()), text


def place(settings: Settings) -> str | None:
    """Return where developers' calls go; None where it is not known."""
    if settings.inference_url is not None or settings.kafka_bootstrap is not None:
        return settings.inference_url
    host = _ANY_ADDRESS.get(settings.host, settings.host)
    return f"http://{host}:{settings.port}" if settings.port else None
