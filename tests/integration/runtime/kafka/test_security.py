"""Every client of ours reaches a broker by TLS, by certificate, and by each SASL mechanism, or says why it cannot."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local import certificates
from runtime.database.engines import Database
from runtime.kafka import feed, topics
from runtime.kafka.clients import Kafka
from runtime.kafka.reader import LogReader
from runtime.kafka.security import SaslMechanism, Security, SecurityProtocol, Tls
from runtime.kafka.writer import KafkaAwayError, KafkaRecord, Writer
from schemas.topics import USAGE_EVENTS
from tests.integration.metering.topic import scene as metering
from tests.support import records, secured, tokens
from tests.support.secured import Secured
from webhooks.topic import consumer as intake

WITHIN_S = 60
MISTYPED = "swordfisch"
PASSWORDS = [SaslMechanism.PLAIN, SaslMechanism.SCRAM_SHA_256, SaslMechanism.SCRAM_SHA_512]
WAYS: dict[str, Callable[[Secured, str], Kafka]] = {
    "TLS with a client's certificate": lambda broker, prefix: broker.tls(prefix),
    **{
        str(one): lambda broker, prefix, one=one: broker.sasl(secured.by_password(one), prefix)  # type: ignore[misc]
        for one in PASSWORDS
    },
    "SASL without TLS": lambda broker, prefix: broker.at(
        "BARE",
        Security(SecurityProtocol.SASL_PLAINTEXT, sasl=secured.by_password(SaslMechanism.SCRAM_SHA_512)),
        prefix,
    ),
}


async def passes(where: Kafka) -> None:
    """Make the topics, write a record and read it with each kind of client."""
    await records.make_topics(where, partitions=1, only=[USAGE_EVENTS])
    writer = Writer(where, "test")
    try:
        await writer.write(USAGE_EVENTS, [KafkaRecord(b"key", b"value")])
    finally:
        await writer.close()
    assert await feed.ends(where, USAGE_EVENTS) == {0: 1}
    async with LogReader(where, USAGE_EVENTS) as reader:
        assert (await reader.bounds())[0].end == 1
    assert [one.value for one in (await records.read(where, USAGE_EVENTS))[0]] == [b"value"]
    member = intake.connect(where, where.name("group"))
    member.subscribe([where.name(USAGE_EVENTS)])
    await member.start()
    await member.stop()


@pytest.mark.parametrize("way", WAYS)
async def test_every_client_passes(secured_kafka: Secured, way: str) -> None:
    await passes(WAYS[way](secured_kafka, f"way-{list(WAYS).index(way)}."))


async def test_every_client_passes_by_token(secured_kafka: Secured) -> None:
    with tokens.serving() as server:
        await passes(secured_kafka.sasl(server.sasl, "tokens."))
        assert server.asked[0][1] == {"grant_type": ["client_credentials"], "scope": ["kafka"]}


@pytest.mark.parametrize("way", [*WAYS, "OAUTHBEARER"])
async def test_metering_counts_through_it(secured_kafka: Secured, postgres: Database, way: str) -> None:
    prefix = f"metering-{[*WAYS, 'OAUTHBEARER'].index(way)}."
    with tokens.serving() as server:
        where = secured_kafka.sasl(server.sasl, prefix) if way == "OAUTHBEARER" else WAYS[way](secured_kafka, prefix)
        await records.make_topics(where, partitions=1)
        scene = metering.Scene(where, postgres)
        await scene.put(*(scene.event(number) for number in range(1, 11)))
        async with metering.running(scene.worker()) as run:
            await metering.until(lambda: scene.counted() == 10, run)
        await scene.writer.close()


async def test_nothing_is_lost_where_the_broker_ends_connections_with_their_tokens(
    secured_kafka: Secured, postgres: Database
) -> None:
    """aiokafka never authenticates an open connection again: the broker closes it at its first request after that."""
    with tokens.serving() as server:
        where = secured_kafka.sasl(server.sasl, "reauth.")
        await records.make_topics(where, partitions=2)
        scene = metering.Scene(where, postgres)
        async with metering.running(scene.worker()) as run, asyncio.timeout(WITHIN_S):
            await scene.put(scene.event(1))
            await metering.until(lambda: scene.counted() == 1, run)
            before, count = len(server.asked), 1
            while len(server.asked) < before + 6:  # writer and worker were closed and came back, several times
                count += 1
                await _written(scene, count)
            await metering.until(lambda: scene.counted() == count, run)
        await scene.writer.close()
    assert scene.requests() == count


async def _written(scene: metering.Scene, number: int) -> None:
    """Write until Kafka takes it, as the publisher of a spool does; the ledger drops what is there twice."""
    while True:
        try:
            return await scene.put(scene.event(number))
        except KafkaAwayError:
            continue


def _wrong_password(broker: Secured, _: Path) -> Kafka:
    return broker.sasl(secured.by_password(SaslMechanism.SCRAM_SHA_512, MISTYPED))


def _no_certificate(broker: Secured, _: Path) -> Kafka:
    return broker.at("TLS", Security(SecurityProtocol.SSL, Tls(broker.files.authority)))


def _another_authority(broker: Secured, folder: Path) -> Kafka:
    return broker.at("SASL", _scram(Tls(certificates.make(folder).authority)))


def _tls(broker: Secured, *, check_hostname: bool = True) -> Security:
    return Security(SecurityProtocol.SSL, Tls(broker.files.authority, check_hostname=check_hostname))


def _scram(tls: Tls) -> Security:
    return Security(SecurityProtocol.SASL_SSL, tls, secured.by_password(SaslMechanism.SCRAM_SHA_512))


def _mechanism_not_offered(broker: Secured, _: Path) -> Kafka:
    return broker.at(
        "BARE", Security(SecurityProtocol.SASL_PLAINTEXT, sasl=secured.by_password(SaslMechanism.SCRAM_SHA_256))
    )


def _tls_to_a_listener_without(broker: Secured, _: Path) -> Kafka:
    return broker.at("BARE", _scram(Tls(broker.files.authority)))


FAILURES: dict[str, tuple[Callable[[Secured, Path], Kafka], str]] = {
    "a wrong password": (_wrong_password, "Authentication failed"),
    "no client's certificate": (_no_certificate, "Does it want another client certificate?"),
    "another authority": (_another_authority, "its certificate is refused: "),
    "a mechanism that is not offered": (_mechanism_not_offered, "SCRAM-SHA-256"),
    "TLS to a listener without": (
        _tls_to_a_listener_without,
        "SECURITY_PROTOCOL=SASL_SSL?",
    ),
    "another name": (
        lambda broker, _: Kafka(f"{secured.OTHER_NAME}:{broker.ports['OTHER']}", "", _tls(broker)),
        f"its certificate is refused: Hostname mismatch, certificate is not valid for '{secured.OTHER_NAME}'",
    ),
    "nothing to a SASL listener": (lambda broker, _: broker.at("BARE", Security()), "SECURITY_PROTOCOL=PLAINTEXT?"),
    "nothing to a TLS listener": (lambda broker, _: broker.at("TLS", Security()), "SECURITY_PROTOCOL=PLAINTEXT?"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_connection_that_fails_says_where_and_why(secured_kafka: Secured, tmp_path: Path, failure: str) -> None:
    make, said = FAILURES[failure]
    where = make(secured_kafka, tmp_path)
    with pytest.raises(KafkaAwayError) as error:
        await topics.ensure(where, records.plans(), create=False)
    assert where.bootstrap in str(error.value)
    assert said in str(error.value)
    assert MISTYPED not in str(error.value)


async def test_a_broker_that_advertises_another_name_than_its_certificates_is_named(
    secured_kafka: Secured, caplog: pytest.LogCaptureFixture
) -> None:
    where = secured_kafka.at("OTHER", _tls(secured_kafka))
    with pytest.raises(KafkaAwayError):
        await topics.ensure(where, records.plans(), create=False)
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert f"{secured.OTHER_NAME}:{secured_kafka.ports['OTHER']}: its certificate is refused" in said
    assert "advertised.listeners" in said


async def test_the_name_alone_may_be_left_unchecked(secured_kafka: Secured) -> None:
    await passes(secured_kafka.at("OTHER", _tls(secured_kafka, check_hostname=False), "unnamed."))
