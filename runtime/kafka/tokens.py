"""Tokens for Kafka's OAUTHBEARER, from an authorization server by the client credentials grant (RFC 6749 4.4).

It asks once for all who wait, and again when the token is no longer young.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote_plus

import httpx
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError
from pydantic import BaseModel, Field, ValidationError

from runtime.kafka.security import Sasl

WITHIN_S = 5.0
_RENEWED_AT = 0.8
"""The share of a token's life after which a new connection gets a new one."""


class _Answer(BaseModel):
    access_token: Annotated[str, Field(min_length=1)]
    expires_in: Annotated[float, Field(ge=0)] = 0
    """Seconds; where it is missing, which RFC 6749 5.1 allows, each connection has a token of its own."""


class KafkaTokens(AbstractTokenProvider):  # type: ignore[misc]  # it has no types
    """The tokens of one Kafka client, whose event loop is the only one that may ask.

    aiokafka asks at each new connection, and never authenticates an open one again: a broker closes that when its
    token ends, and the next connection brings a new token.
    """

    def __init__(
        self,
        sasl: Sasl,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sasl = sasl
        self._transport = transport
        self._steady = steady
        self._asking = asyncio.Lock()
        self._token = ""
        self._renew_at = self._ends_at = -float("inf")

    async def token(self) -> str:
        """Return a token. Raise KafkaConnectionError where there is none and the server gives none."""
        async with self._asking:
            if self._steady() >= self._renew_at:
                try:
                    await self._renew()
                except KafkaConnectionError:
                    if self._steady() >= self._ends_at:
                        raise
            return self._token

    async def _renew(self) -> None:
        asked_at, where = self._steady(), f"the token endpoint {self._sasl.token_url}"
        try:
            response = await self._ask()
            answer = _Answer.model_validate_json(response.raise_for_status().content)
        except httpx.HTTPStatusError as error:
            raise KafkaConnectionError(f"{where} answers {error.response.status_code}") from None
        except httpx.HTTPError as error:
            raise KafkaConnectionError(f"{where} cannot be asked: {error or type(error).__name__}") from None
        except ValidationError:
            raise KafkaConnectionError(f"{where} gives no token that can be read (RFC 6749 5.1)") from None
        self._token = answer.access_token
        self._ends_at = asked_at + answer.expires_in
        self._renew_at = asked_at + answer.expires_in * _RENEWED_AT

    async def _ask(self) -> httpx.Response:
        sasl = self._sasl
        # RFC 6749 2.3.1: both are form-encoded before they go into the header
        auth = httpx.BasicAuth(quote_plus(sasl.client_id or ""), quote_plus(sasl.client_secret or ""))
        form = {"grant_type": "client_credentials"} | ({"scope": sasl.scope} if sasl.scope else {})
        async with httpx.AsyncClient(transport=self._transport, timeout=WITHIN_S) as client:
            return await client.post(sasl.token_url or "", data=form, auth=auth)
