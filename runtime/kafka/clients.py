"""Every client of Kafka's is made with what this module gives: where Kafka is, how it is reached, and what is denied.

None of ours creates a topic by asking about it. Where `auto.create.topics.enable` is true, which is Kafka's default, a
metadata request says whether the broker may create the topics that it names. aiokafka 0.14 always says that it may, and
has no option for it: a topic that was asked about before `tollgate migrate` would have the broker's partitions and
retention instead of ours.

Nor does one fail without a reason: aiokafka only logs why a connection could not be made.
"""

import asyncio
import logging
import ssl
from dataclasses import dataclass, field
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError, UnsupportedSaslMechanismError
from aiokafka.protocol.metadata import MetadataRequest

from runtime.kafka.security import SaslMechanism, Security
from runtime.settings import Settings

_REASON_WITHIN_S = 5.0
_CLOSED = "the broker closed the connection: does the listener speak TOLLGATE_KAFKA_SECURITY_PROTOCOL="

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kafka:
    """Where Kafka is, what stands before every name there, and how its clients connect."""

    bootstrap: str
    prefix: str = ""
    security: Security = field(default_factory=Security)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take what the settings say. Raise ValueError where they name no Kafka."""
        if settings.kafka_bootstrap is None:
            raise ValueError("TOLLGATE_KAFKA_BOOTSTRAP is not set")
        return cls(settings.kafka_bootstrap, settings.kafka_topic_prefix, settings.kafka_security())

    def name(self, topic: str) -> str:
        """Return the real name of a topic or of a consumer group."""
        return self.prefix + topic


def options(where: Kafka) -> dict[str, Any]:
    """Return what each client of aiokafka's needs to reach Kafka. One client's: its tokens belong to its event loop.

    Raise SecurityError where a certificate cannot be read any more.
    """
    given = {"bootstrap_servers": where.bootstrap, **where.security.options()}
    sasl = where.security.sasl
    if sasl is not None and sasl.mechanism == SaslMechanism.OAUTHBEARER:
        from runtime.kafka.tokens import KafkaTokens  # noqa: PLC0415 - brings an HTTP client

        given["sasl_oauth_token_provider"] = KafkaTokens(sasl)
    return given


def producer(where: Kafka, **more: Any) -> AIOKafkaProducer:
    """Make a producer; `more` are its other options."""
    made = AIOKafkaProducer(**options(where), **more)
    never_create_topics(made.client)
    return made


def admin(where: Kafka, **more: Any) -> AIOKafkaAdminClient:
    """Make an admin client; `more` are its other options."""
    made = AIOKafkaAdminClient(**options(where), **more)
    never_create_topics(made._client)  # noqa: SLF001 - the admin client gives it to nobody
    return made


class _Connection(AIOKafkaConnection):  # type: ignore[misc]  # it has no types
    def send(self, request: Any, expect_response: bool = True) -> Any:
        if isinstance(request, MetadataRequest):
            request._allow_auto_topic_creation = False  # noqa: SLF001 - its constructor's argument, given by nobody
        return super().send(request, expect_response=expect_response)


class _Client(AIOKafkaClient):  # type: ignore[misc]  # it has no types
    _said: frozenset[str] = frozenset()

    async def bootstrap(self) -> None:
        try:
            await super().bootstrap()
        except KafkaConnectionError as error:
            if (reason := await self._reason(*self.hosts[0][:2])) is None:  # it came back meanwhile
                raise
            raise KafkaConnectionError(reason) from error

    async def _get_conn(self, node_id: Any, **more: Any) -> Any:
        connection = await super()._get_conn(node_id, **more)
        if connection is not None:
            connection.__class__ = _Connection
        elif (broker := self.cluster.broker_metadata(node_id)) is not None and self._is_secured:
            # the address that the broker gives for its listener may be another than the one we were given
            reason = await self._reason(broker.host, broker.port)
            if reason is not None and reason not in self._said:
                self._said |= {reason}
                log.error("Kafka's broker %s, as its advertised.listeners say: %s", node_id, reason)
        return connection

    @property
    def _is_secured(self) -> bool:
        return bool(self._security_protocol != "PLAINTEXT")

    async def _reason(self, host: str, port: int) -> str | None:
        """Connect once more and return why that fails, with host and port; None where it does not."""
        try:
            async with asyncio.timeout(_REASON_WITHIN_S):
                connection = await self._connect(host, port)
                try:
                    await connection.send(MetadataRequest([]))
                finally:
                    connection.close()
        except (OSError, KafkaError, asyncio.IncompleteReadError) as error:
            return f"{host}:{port}: {self._explained(error)}"
        return None

    async def _connect(self, host: str, port: int) -> AIOKafkaConnection:
        return await create_conn(
            host,
            port,
            client_id=self._client_id,
            request_timeout_ms=self._request_timeout_ms,
            ssl_context=self._ssl_context,
            security_protocol=self._security_protocol,
            sasl_mechanism=self._sasl_mechanism,
            sasl_plain_username=self._sasl_plain_username,
            sasl_plain_password=self._sasl_plain_password,
            sasl_oauth_token_provider=self._sasl_oauth_token_provider,
        )

    def _explained(self, error: Exception) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {error.verify_message}"
        if isinstance(error, ssl.SSLError):
            return f"TLS fails ({error.reason}): does the listener speak {self._security_protocol}?"
        if isinstance(error, TimeoutError):
            return f"no answer within {_REASON_WITHIN_S:g} s"
        if isinstance(error, UnsupportedSaslMechanismError):
            return f"the listener does not offer SASL {self._sasl_mechanism}"
        if isinstance(error, ConnectionResetError) or "closed" in str(error):
            wants = " Does it want another client certificate?" if self._security_protocol == "SSL" else ""
            return f"{_CLOSED}{self._security_protocol}?{wants}"
        return str(error) or type(error).__name__


def never_create_topics(client: AIOKafkaClient) -> None:
    """Have the client of an aiokafka producer, consumer or admin client say that no topic may be created by a question.

    Each of them makes its client itself, and each client its connections. Every request goes through `_get_conn`, but
    for the first of all, which names no topic. Brokers before Kafka 0.11 know no such word.
    """
    client.__class__ = _Client
