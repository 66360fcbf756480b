"""A topic that this installation cannot read ends its readers loudly; none stays alive and ready (ADR 33)."""

import asyncio
import re
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from runtime.kafka.writer import Kafka, KafkaRecord, Writer
from runtime.settings import Settings
from schemas.topics import USAGE_EVENTS
from tests.e2e.conftest import eventually
from tests.support import processes, records
from tests.unit.metering.factories import event
from tollgate.roles import control
from tollgate.roles.process import Process

WITHIN_S = 120.0


@pytest.fixture
def without_codecs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes of this test be an installation that lacks what reads lz4."""
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "cramjam.py").write_text('raise ImportError("not installed")\n', encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shadow"))


@pytest.mark.parametrize("role", ["metering", "webhooks"])
async def test_its_reader_ends_with_a_line_that_says_why(
    apart: Settings, kafka: Kafka, tmp_path: Path, without_codecs: None, role: str
) -> None:
    with ExitStack() as closing:
        relaying = Process(apart, control.prepare(apart, closing)())
        relay = asyncio.create_task(relaying.serve(lambda _: None))
        try:
            await asyncio.to_thread(read_with, role, apart, kafka, tmp_path)
        finally:
            relaying.stop()
            await relay


def read_with(role: str, apart: Settings, kafka: Kafka, folder: Path) -> None:
    given = {name: _plain(getattr(apart, name)) for name in apart.model_fields_set - {"port"}}
    with processes.server(folder / f"{role}.log", "serve", role, **given) as running:
        ready = f"{running.announced['ops_url']}/readyz"
        eventually(lambda: httpx.get(ready).status_code == 200)
        asyncio.run(records.compress(kafka, USAGE_EVENTS, "lz4"))
        numbers = count(1)

        def has_ended() -> bool:
            asyncio.run(put(kafka, next(numbers)))  # the first may come before the broker goes by its new setting
            return running.process.poll() is not None

        eventually(has_ended)
        code = running.process.wait(WITHIN_S)
    last = (folder / f"{role}.log").read_text(encoding="utf-8").splitlines()[-1]
    assert code == 1
    assert re.search(rf"{USAGE_EVENTS} cannot be read on: .*lz4", last)
    with pytest.raises(httpx.TransportError):
        httpx.get(ready)


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


async def put(kafka: Kafka, number: int) -> None:
    writer = Writer(kafka, "proxy")
    await writer.write(USAGE_EVENTS, [KafkaRecord(b"root", event(number).model_dump_json().encode())])
    await writer.close()
