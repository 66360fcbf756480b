"""A Kafka broker of the tests' own that has a listener for each way of being reached, and who may come in.

Stock settings beside that; authentication alone, no authorizer.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.local import certificates, kafka, process
from infra.local.certificates import Certificates
from infra.local.kafka import Broker
from runtime.kafka.security import Sasl, SaslMechanism, Security, SecurityProtocol, Tls
from runtime.kafka.writer import Kafka

USER, PASSWORD = "tollgate", "swordfish"
REAUTH_MS = 2000
"""How long a broker leaves a connection that was authenticated by a token, at most."""

OTHER_NAME = "127.1"
"""This machine, by a name that no certificate of these tests has."""
_AUTHORIZES = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}
_LOGIN = "org.apache.kafka.common.security"
_SCRAM = f"{_LOGIN}.scram.ScramLoginModule required;"
_PLAIN = f'{_LOGIN}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
_BEARER = f'{_LOGIN}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
_SPEAKS = {
    "PLAINTEXT": "PLAINTEXT",
    "CONTROLLER": "PLAINTEXT",
    "TLS": "SSL",
    "SASL": "SASL_SSL",
    "BARE": "SASL_PLAINTEXT",
    "OTHER": "SSL",
}


@dataclass(frozen=True, slots=True)
class Secured:
    """The broker, and where each of its listeners is."""

    broker: Broker
    files: Certificates
    ports: dict[str, int]
    """By listener: TLS (client certificates), SASL (over TLS), BARE (SASL without TLS), OTHER (TLS, and the broker
    advertises it by a name that its certificate does not have)."""

    def at(self, listener: str, security: Security, prefix: str = "") -> Kafka:
        """Return how a client reaches a listener."""
        return Kafka(f"localhost:{self.ports[listener]}", prefix, security)

    def tls(self, prefix: str = "") -> Kafka:
        """Return how a client with a certificate of its own does."""
        return self.at("TLS", Security(SecurityProtocol.SSL, Tls(self.files.authority, self.files.client)), prefix)

    def sasl(self, sasl: Sasl, prefix: str = "") -> Kafka:
        """Return how a client does that authenticates itself by `sasl`, over TLS."""
        return self.at("SASL", Security(SecurityProtocol.SASL_SSL, Tls(self.files.authority), sasl), prefix)


def by_password(mechanism: SaslMechanism, password: str = PASSWORD) -> Sasl:
    """Return what the user of these tests gives."""
    return Sasl(mechanism, USER, password)


@contextmanager
def running(folder: Path, *users: str, authorizes: bool = False) -> Iterator[Secured]:
    """Run such a broker for the length of a `with` block; `users` may come in by SCRAM too, with the same password.

    Where it `authorizes`, those of the plain listener may do anything, and all others only what they are allowed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    broker = kafka.at(folder)
    files = certificates.make(folder)
    ports = dict(zip(("TLS", "SASL", "BARE", "OTHER"), process.free_ports(4), strict=True))
    broker.more = _properties(broker, files, ports) | (_AUTHORIZES if authorizes else {})
    broker.scram = [f"SCRAM-SHA-{size}=[name={USER},password={PASSWORD}]" for size in (256, 512)]
    broker.scram = [*broker.scram, *(f"SCRAM-SHA-512=[name={name},password={PASSWORD}]" for name in users)]
    with process.running(broker):
        yield Secured(broker, files, ports)


def _properties(broker: Broker, files: Certificates, ports: dict[str, int]) -> dict[str, str]:
    ours = {"PLAINTEXT": broker.port, **ports}
    listeners = [f"{name}://{process.HOST}:{port}" for name, port in ours.items()]
    advertised = [where.replace(f"OTHER://{process.HOST}", f"OTHER://{OTHER_NAME}") for where in listeners]
    logins = {"plain": _PLAIN, "scram-sha-256": _SCRAM, "scram-sha-512": _SCRAM, "oauthbearer": _BEARER}
    return {
        "listeners": ",".join([*listeners, f"CONTROLLER://{process.HOST}:{broker.controller_port}"]),
        "advertised.listeners": ",".join(advertised),
        "listener.security.protocol.map": ",".join(f"{name}:{speaks}" for name, speaks in _SPEAKS.items()),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(files.server),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(files.authority),
        "listener.name.tls.ssl.client.auth": "required",
        "listener.name.sasl.sasl.enabled.mechanisms": ",".join(SaslMechanism),
        "listener.name.bare.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.bare.scram-sha-512.sasl.jaas.config": _SCRAM,
        "listener.name.sasl.oauthbearer.connections.max.reauth.ms": str(REAUTH_MS),
    } | {f"listener.name.sasl.{mechanism}.sasl.jaas.config": login for mechanism, login in logins.items()}


@pytest.fixture(scope="module")
def secured_kafka(kafka_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker that is reached by TLS and SASL, for the tests of one module."""
    folder = tmp_path_factory.mktemp("secured")
    with running(folder) as broker:
        yield broker
    shutil.rmtree(folder, ignore_errors=True)
