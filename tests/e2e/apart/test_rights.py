"""With the rights that docs/operate.md lists, and no other, every role does its work; none may do another's."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka.protocol.admin import CreateAclsRequest

from infra.local import parts
from runtime.kafka import clients
from runtime.kafka.clients import Kafka
from runtime.kafka.security import Sasl, SaslMechanism
from runtime.kafka.writer import KafkaAwayError, KafkaRecord, Writer
from schemas.topics import GATEWAY_CONFIG, LIMITS_DECISIONS, USAGE_DAILY, USAGE_EVENTS
from tests.architecture import sources
from tests.e2e.apart import lab as labs
from tests.e2e.apart.crowd import SLUG
from tests.e2e.conftest import eventually
from tests.support import cluster as clusters
from tests.support import processes, records, secured
from tests.support.cluster import Cluster
from tests.support.secured import Secured

COUNTS = {"control": 1, "proxy": 1, "metering": 1, "webhooks": 1}
USERS = (*COUNTS, "operator", "finance")
CALLS = 20
ASKING = {"model": SLUG, "messages": [{"role": "user", "content": "How are you?"}]}
# of org.apache.kafka.common.acl.AclOperation and resource.ResourceType
_OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Delete": 6, "Describe": 8, "DescribeConfigs": 10}
_TOPIC, _GROUP, _LITERAL, _ALLOW = 2, 3, 3, 3


def documented() -> Iterator[tuple[int, str, str, int]]:
    """Return each right of the documentation: type and name of the resource, principal, operation."""
    given = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("--allow-principal", "--operation", "--topic", "--group"):
        given.add_argument(name, action="append", default=[])
    text = (sources.ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    for line in re.findall(r"^allow (--.*)$", text, re.MULTILINE):
        rights = given.parse_args(shlex.split(line))
        resources = [(_TOPIC, name) for name in rights.topic] + [(_GROUP, name) for name in rights.group]
        for kind, name in resources:
            for principal in rights.allow_principal:
                for operation in rights.operation:
                    yield kind, name, principal, _OPERATIONS[operation]


async def allow(where: Kafka) -> int:
    """Give everyone the rights of the documentation, as Kafka's own tool does; return how many."""
    admin = clients.admin(where)
    await admin.start()
    try:
        rights = list(documented())
        for kind, name, principal, operation in rights:
            asked = CreateAclsRequest(kind, name, _LITERAL, principal, "*", operation, _ALLOW)
            answer = await admin._send_request(asked)
            assert [code for code, _ in answer.creation_responses] == [0]
        return len(rights)
    finally:
        await admin.close()


@pytest.fixture(scope="module")
def strict(kafka_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker that lets each user do what it is allowed, and no more."""
    with secured.running(tmp_path_factory.mktemp("strict"), *USERS, authorizes=True) as broker:
        yield broker


def login(broker: Secured, user: str) -> dict[str, Any]:
    return {
        "kafka_bootstrap": f"localhost:{broker.ports['SASL']}",
        "kafka_security_protocol": "SASL_SSL",
        "kafka_tls_ca_file": str(broker.files.authority),
        "kafka_sasl_mechanism": "SCRAM-SHA-512",
        "kafka_sasl_username": user,
        "kafka_sasl_password": secured.PASSWORD,
    }


class EachItsOwn(Cluster):
    """Every process as the user of its role; commands as the operator."""

    broker: Secured

    def start(self, name: str) -> None:
        part = self.parts[name]
        settings = self.settings | login(self.broker, part.role)
        running = processes.server(self.folder / f"{name}.log", *part.words()[:-1], **settings)
        self.servers[name] = self.stack.enter_context(running)


def as_user(broker: Secured, user: str) -> Kafka:
    return broker.sasl(Sasl(SaslMechanism.SCRAM_SHA_512, user, secured.PASSWORD))


async def write(where: Kafka, topic: str) -> None:
    writer = Writer(where, "test")
    try:
        await writer.write(topic, [KafkaRecord(b"key", b"{}")])
    finally:
        await writer.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_each_role_works_with_its_rights_and_none_does_anothers_work(
    strict: Secured, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await allow(Kafka(strict.broker.bootstrap)) > len(USERS)
    monkeypatch.setattr(EachItsOwn, "broker", strict, raising=False)
    monkeypatch.setattr(clusters, "Cluster", EachItsOwn)
    as_operator = as_user(strict, "operator")
    with (
        clusters.running(tmp_path, as_operator, postgres_url, COUNTS, 4, **login(strict, "operator")) as cluster,
        labs.on(cluster, tmp_path) as lab,
    ):
        assert set(parts.PUBLIC) <= {part.role for part in cluster.parts.values()}
        _, key = lab.customer("alone")
        (proxy,) = cluster.proxies
        headers = {"Authorization": f"Api-Key {key}"}

        def called() -> int:
            url = f"{proxy}/v1/chat/completions"
            return httpx.post(url, headers=headers, json=ASKING, timeout=60).status_code

        eventually(lambda: called() == 200)
        assert [called() for _ in range(CALLS)] == [200] * CALLS
        code, report = lab.reconcile()
        assert code == 0, report
        eventually(lambda: len(lab.received()) == CALLS + 1)
    finance = as_user(strict, "finance")
    read = await records.read(finance, USAGE_EVENTS)
    assert sum(len(some) for some in read.values()) == CALLS + 1
    assert any((await records.read(finance, USAGE_DAILY)).values())
    for user, topic in {
        "finance": USAGE_EVENTS,
        "proxy": LIMITS_DECISIONS,
        "webhooks": USAGE_EVENTS,
        "metering": GATEWAY_CONFIG,
    }.items():
        with pytest.raises(KafkaAwayError, match="AuthorizationFailed"):
            await write(as_user(strict, user), topic)
