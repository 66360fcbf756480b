"""Kafka, PostgreSQL and Redis on this machine: as they come, or as a company has them, by TLS and with passwords."""

import asyncio
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from infra.local import certificates, kafka, postgres, process, redis
from infra.local.certificates import Certificates
from infra.local.process import LocalError, Service
from runtime.kafka.reader import LogReader
from runtime.kafka.security import Sasl, SaslMechanism, Security, SecurityProtocol, Tls
from runtime.kafka.writer import Kafka, KafkaAwayError

USER = "tollgate"
_MECHANISM = SaslMechanism.SCRAM_SHA_512
_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required"
_DATABASE_USER = "postgres"
_ONLY_BY_CERTIFICATE = f"hostssl all {_DATABASE_USER} {process.HOST}/32 cert\n"
_ANSWER_S = 5.0

OWN: Mapping[str, str] = {
    "kafka_bootstrap": "two or three of your brokers, by the names that their certificates have",
    "kafka_tls_ca_file": "your authority's certificate; leave it out where a public authority signed",
    "kafka_sasl_mechanism": "what your listener offers",
    "kafka_sasl_username": 'a user for each role, with the rights in docs/operate.md, "Rights"',
    "kafka_sasl_password": "that user's",
    "kafka_replication": "3 where you have three brokers, and TOLLGATE_KAFKA_MIN_INSYNC_REPLICAS=2",
    "database_url": "your server and a user that owns its schema, here the superuser; keep sslmode=verify-full",
    "redis_url": "your server, with a user that may do what docs/operate.md says",
    "redis_tls_ca_file": "as for Kafka",
    "master_key": "one of your own, kept with your secrets: without it no stored secret can be opened",
    "allow_private_upstreams": "leave it out, unless your model servers have private addresses",
    "allow_private_receivers": "leave it out: labs' receivers are on the internet",
}
"""What a company sets to values of its own, by the settings' names."""

Ports = Callable[[str], int]
"""Returns the port of a service by its name: kafka, postgres or redis."""


class Services(NamedTuple):
    """The three, not started yet, and how the product reaches them, by the settings' names."""

    kafka: Service
    postgres: Service
    redis: Service
    settings: dict[str, str]


def plain(folder: Path, port: Ports) -> Services:
    """Return services that let everyone of this machine in. Raise LocalError where `folder` holds secured ones."""
    if (folder / "certificates").exists():
        raise LocalError(f"{folder} holds services with TLS: start them with --secure, or name another folder")
    broker = kafka.at(folder / "kafka", port("kafka"))
    database = postgres.at(folder / "postgres", port("postgres"))
    windows = redis.at(folder / "redis", port("redis"))
    reached = {"kafka_bootstrap": broker.bootstrap, "database_url": database.url, "redis_url": windows.url}
    return Services(broker, database, windows, reached)


def secured(folder: Path, port: Ports, *, durable: bool = True) -> Services:
    """Return services that speak TLS alone: Kafka by SASL, PostgreSQL by client certificate, Redis by password.

    Raise LocalError where `folder` holds others.
    """
    made = folder / "certificates"
    if not made.exists() and (folder / "kafka").exists():
        raise LocalError(f"{folder} holds services without TLS: start them without --secure, or name another folder")
    made.mkdir(mode=0o711, exist_ok=True)
    files = certificates.make(made, client=_DATABASE_USER)
    password = _password(made / "password")
    broker = _broker(folder / "kafka", port("kafka"), files, password)
    database = _database(folder / "postgres", port("postgres"), files, durable=durable)
    windows = _redis(folder / "redis", port("redis"), files, password)
    reached = {
        "kafka_bootstrap": broker.bootstrap,
        "kafka_security_protocol": SecurityProtocol.SASL_SSL.value,
        "kafka_tls_ca_file": str(files.authority),
        "kafka_sasl_mechanism": _MECHANISM.value,
        "kafka_sasl_username": USER,
        "kafka_sasl_password": password,
        "database_url": database.url,
        "redis_url": windows.url,
        "redis_tls_ca_file": str(files.authority),
    }
    return Services(broker, database, windows, reached)


def _password(file: Path) -> str:
    """Return the password of an earlier start, or a new one."""
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(24), encoding="ascii")
    return file.read_text(encoding="ascii")


@dataclass
class _Broker(kafka.Broker):
    clients: Security = field(default_factory=Security)
    """How clients come in."""

    def answers(self) -> bool:
        ca_file = self.clients.tls.ca_file
        if ca_file is None or not _shakes_hands(self.port, ca_file):
            return False
        return asyncio.run(_answers(Kafka(self.bootstrap, "", self.clients)))


async def _answers(where: Kafka) -> bool:
    async with LogReader(where, "a topic") as reader:
        with suppress(KafkaAwayError):
            await reader.exists()
            return True
    return False


def _broker(folder: Path, port: int, files: Certificates, password: str) -> _Broker:
    folder.mkdir(parents=True, exist_ok=True)
    (controller,) = process.free_ports(1)
    login = f'{_LOGIN} username="{USER}" password="{password}";'
    security = Security(SecurityProtocol.SASL_SSL, Tls(files.authority), Sasl(_MECHANISM, USER, password))
    broker = _Broker(folder.resolve(), port, controller, clients=security)
    broker.scram = [f"{_MECHANISM.value}=[name={USER},password={password}]"]
    broker.more = {
        "listeners": f"SASL://{process.HOST}:{port},CONTROLLER://{process.HOST}:{controller}",
        "advertised.listeners": f"SASL://{process.HOST}:{port}",
        "listener.security.protocol.map": "SASL:SASL_SSL,CONTROLLER:SSL",
        "inter.broker.listener.name": "SASL",
        "sasl.mechanism.inter.broker.protocol": _MECHANISM.value,
        "sasl.enabled.mechanisms": _MECHANISM.value,
        f"listener.name.sasl.{_MECHANISM.value.lower()}.sasl.jaas.config": login,
        "listener.name.controller.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(files.server),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(files.authority),
    }
    return broker


def _database(folder: Path, port: int, files: Certificates, *, durable: bool) -> postgres.Server:
    server = postgres.at(folder, port, durable=durable)
    folder.chmod(0o711)
    own = folder / "server.pem"  # PostgreSQL takes a key that is its own user's alone
    own.touch(mode=0o600)
    own.write_bytes(files.server.read_bytes())
    if (user := postgres.user()) is not None:
        os.chown(own, user, -1)
    hba = folder / "hba.conf"
    hba.write_text(_ONLY_BY_CERTIFICATE, encoding="ascii")
    server.more = {
        "ssl": "on",
        "ssl_cert_file": str(own),
        "ssl_key_file": str(own),
        "ssl_ca_file": str(files.authority),
        "hba_file": str(hba),
    }
    server.options = f"?sslmode=verify-full&sslrootcert={files.authority}&sslcert={files.client}&sslkey={files.client}"
    return server


@dataclass
class _Redis(redis.Server):
    ca_file: Path = Path()
    password: str = ""

    @property
    def url(self) -> str:
        return f"rediss://:{self.password}@{process.HOST}:{self.port}/0"

    def answers(self) -> bool:
        return _shakes_hands(self.port, self.ca_file)


def _redis(folder: Path, port: int, files: Certificates, password: str) -> _Redis:
    folder.mkdir(parents=True, exist_ok=True)
    lines = {
        "port": 0,
        "tls-port": port,
        "tls-auth-clients": "no",
        "tls-cert-file": files.server,
        "tls-key-file": files.server,
        "tls-ca-cert-file": files.authority,
        "requirepass": password,
    }
    configuration = folder / "redis.conf"  # a command line is read by every user of the machine
    configuration.touch(mode=0o600)
    configuration.write_text("".join(f"{name} {value}\n" for name, value in lines.items()), encoding="utf-8")
    more = ("--include", str(configuration))
    return _Redis(folder.resolve(), port, more, ca_file=files.authority, password=password)


def _shakes_hands(port: int, ca_file: Path) -> bool:
    context = ssl.create_default_context(cafile=ca_file)
    with suppress(OSError), socket.create_connection((process.HOST, port), timeout=_ANSWER_S) as connection:
        context.wrap_socket(connection, server_hostname=process.HOST).close()
        return True
    return False
