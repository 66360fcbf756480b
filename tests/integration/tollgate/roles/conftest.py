"""What a role is started with."""

import base64
from pathlib import Path

import pytest

from runtime.kafka.writer import Kafka
from runtime.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    key = base64.b64encode(bytes(32)).decode()
    return Settings(data_dir=tmp_path, port=0, ops_port=0, master_key=key, webhook_attempt_timeout_s=1)


@pytest.fixture
def apart(settings: Settings, kafka: Kafka, postgres_migrated_url: str) -> Settings:
    changed = {
        "kafka_bootstrap": kafka.bootstrap,
        "kafka_topic_prefix": kafka.prefix,
        "database_url": postgres_migrated_url,
        "kafka_partitions": 1,
        "kafka_replication": 1,
        "kafka_min_insync_replicas": 1,
    }
    return Settings.model_validate({**settings.model_dump(exclude_unset=True), **changed})
