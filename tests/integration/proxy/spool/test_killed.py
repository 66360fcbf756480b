"""kill -9 at any moment: what `put` returned is in the file, the rest is in a slot (contract 7, counting 1, 2)."""

import asyncio
import json
import random
import signal
import sys
from pathlib import Path

import pytest

from proxy.app import Proxy
from proxy.spool import writer
from proxy.spool.slots import Slots
from runtime import clock
from runtime.settings import Settings, SpoolSync
from schemas.usage import Outcome, UsageEvent
from tests.architecture import sources
from tests.contracts.proxy.drafts import draft
from tests.support.events import as_contract
from tests.unit.proxy import kit

pytestmark = pytest.mark.slow


async def kill_after(folder: Path, sync: SpoolSync, lines: int) -> list[tuple[int, int]]:
    """Let the process die soon after it has reported so many events; return all that it reported."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.proxy.dying",
        str(folder),
        sync.value,
        cwd=sources.ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    reported: list[bytes] = []
    async with asyncio.timeout(240):
        while len(reported) < lines:
            reported.append(await process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        reported += (await process.stdout.read()).splitlines(keepends=True)
        await process.wait()
    whole = [line.split() for line in reported if line.endswith(b"\n")]
    return [(int(sequence), int(number)) for sequence, number in whole]


@pytest.mark.parametrize("sync", SpoolSync)
async def test_all_that_was_reported_is_in_the_file(tmp_path: Path, sync: SpoolSync) -> None:
    reported = await kill_after(tmp_path, sync, random.randint(50, 300))
    opened, older = writer.open_folder(tmp_path / "spool", sync=sync, max_bytes=2**30)
    assert not older
    kept = {event.producer.sequence: event.idempotency_key for event in opened.file.remaining()}
    assert {sequence: f"key-{number}" for sequence, number in reported}.items() <= kept.items()
    assert sorted(kept) == list(range(1, len(kept) + 1))
    assert len(set(kept.values())) == len(kept)
    assert await opened.put(draft(10**9)) == len(kept) + 1
    opened.close()


async def test_the_next_start_bills_what_was_in_flight_once(tmp_path: Path) -> None:
    reported = await kill_after(tmp_path, SpoolSync.NORMAL, 100)
    left = leftovers(tmp_path)
    assert 1 <= len(left) <= 8
    billed, events = await recovered(tmp_path)
    keys = [event.idempotency_key for event in events]
    assert len(keys) == len(set(keys))
    assert {f"key-{number}" for _, number in reported} <= set(keys)
    assert set(left) <= set(keys)
    assert [event.idempotency_key for event in events if event.outcome is Outcome.GATEWAY_INTERRUPTED] == billed
    assert set(billed) <= set(left)
    assert not leftovers(tmp_path)
    assert await recovered(tmp_path) == ([], events), "a second start bills nothing again"


def leftovers(folder: Path) -> list[str]:
    slots = Slots(folder / "in_flight")
    left = [json.loads(facts)["idempotencyKey"] for facts in slots.leftovers()]
    slots.close()
    return left


async def recovered(folder: Path) -> tuple[list[str], list[UsageEvent]]:
    """Start a proxy; return the keys of what it bills for the one before, and all events it then has."""
    proxy = Proxy(Settings(), folder, kit.VAULT, clock.steady())
    billed = [draft.idempotency_key for draft in await proxy.recover(kit.none_is_counted)]
    events = list(map(as_contract, proxy.spool.file.remaining()))
    await proxy.close()
    return billed, events
