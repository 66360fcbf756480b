"""Access tokens for Vertex AI, which the key of a service account is exchanged for (RFC 7523).

A token is renewed in a thread before it ends, while the old one is used: a request waits only for the first one. Of
one key at most one exchange is under way.
"""

import asyncio
import json
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.auth import exceptions
from google.auth.credentials import TokenState
from google.oauth2 import service_account

from proxy.upstream import tls

MOST_KEYS = 10_000
"""Kept at once; the one used longest ago goes first."""

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_TIMEOUT_S = 10
_RETRY_AFTER_S = 2
"""After an exchange that failed: until then a key without a token is refused at once."""
_AT_ONCE = 4
"""Exchanges, over all keys: they share the process's threads with others."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Response:
    """What google-auth reads of an answer (`google.auth.transport.Response`)."""

    status: int
    headers: Mapping[str, str]
    data: bytes


def _post(
    url: str, method: str = "GET", body: Any = None, headers: Mapping[str, str] | None = None, **_: Any
) -> _Response:
    """Send google-auth's request: redirects are not followed, and no proxy or netrc of the environment is asked."""
    import httpx  # noqa: PLC0415 - few labs have such targets

    try:
        with httpx.Client(verify=tls.client_context(), timeout=_TIMEOUT_S, trust_env=False) as client:
            answer = client.request(method, url, content=body, headers=headers)
    except httpx.HTTPError as error:
        raise exceptions.TransportError(type(error).__name__) from error
    return _Response(answer.status_code, answer.headers, answer.content)


class _Account:
    """One key, its token, and the exchange under way."""

    def __init__(self, credentials: Any) -> None:
        self.credentials = credentials
        self.exchange: asyncio.Task[None] | None = None
        self.not_before = -math.inf
        """Of the next exchange, by the loop's clock."""


class AccessTokens:
    """The tokens of one proxy's Vertex targets."""

    def __init__(self, token_url: str, post: Callable[..., Any] = _post) -> None:
        self._token_url = token_url
        self._post = post
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def token(self, key: str, *, instead_of: str | None = None) -> str | None:
        """Return a token for a key's JSON (`service_accounts.canonical`); None where there is none to be had.

        `instead_of` is one that was refused: unless it has been replaced, it is.
        """
        account = self._account(key)
        if account is None:
            return None
        held = account.credentials
        state = held.token_state
        if state is TokenState.INVALID or (instead_of is not None and held.token == instead_of):
            if (exchange := self._exchange(account)) is not None:
                await asyncio.shield(exchange)  # others may wait for it too
        elif state is TokenState.STALE:
            self._exchange(account)
        usable = held.token_state is not TokenState.INVALID and held.token != instead_of
        return str(held.token) if usable else None

    async def close(self) -> None:
        """Wait for the exchanges under way; each is bounded."""
        under_way = [account.exchange for account in self._accounts.values() if account.exchange is not None]
        await asyncio.gather(*under_way, return_exceptions=True)

    def _account(self, key: str) -> _Account | None:
        account = self._accounts.get(key)
        if account is None:
            info = json.loads(key) | {"token_uri": self._token_url}
            try:
                credentials = service_account.Credentials.from_service_account_info(info, scopes=_SCOPES)
            except (ValueError, exceptions.GoogleAuthError):  # its message may hold a part of the key
                log.warning("a service account's private key cannot be read")
                return None
            account = self._accounts[key] = _Account(credentials)
            if len(self._accounts) > MOST_KEYS:
                self._accounts.popitem(last=False)
        self._accounts.move_to_end(key)
        return account

    def _exchange(self, account: _Account) -> asyncio.Task[None] | None:
        loop = asyncio.get_running_loop()
        if account.exchange is None and loop.time() >= account.not_before:
            account.exchange = loop.create_task(self._exchanged(account))
        return account.exchange

    async def _exchanged(self, account: _Account) -> None:
        try:
            async with self._turns:
                await asyncio.to_thread(account.credentials.refresh, self._post)
        except exceptions.GoogleAuthError as error:
            account.not_before = asyncio.get_running_loop().time() + _RETRY_AFTER_S
            log.warning("%s gets no access token: %s", account.credentials.service_account_email, error)
        finally:
            account.exchange = None
