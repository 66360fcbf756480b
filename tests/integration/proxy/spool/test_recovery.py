"""What a start puts back of the process before it (contract 4, 7, counting 1, 2)."""

import logging
from pathlib import Path
from typing import Any

import pytest

from proxy.app import Proxy
from proxy.limits.estimate import TokenCounts
from proxy.spool.slots import Slots
from runtime import clock
from runtime.settings import Settings
from schemas.usage import Outcome, Tokens, UsageEvent, UsageSource
from tests.contracts.proxy.drafts import draft
from tests.support.events import as_contract
from tests.unit.proxy import kit
from tests.unit.proxy.core.test_usage_event import EXPECTED, kept


def leave(folder: Path, *facts: bytes) -> None:
    """Leave slots as a process does that dies."""
    slots = Slots(folder / "in_flight")
    for each in facts:
        slots.open_slot(each)
    slots.close()


def proxy(folder: Path, **settings: Any) -> Proxy:
    return Proxy(Settings(**settings), folder, kit.VAULT, clock.steady())


def spooled(started: Proxy) -> list[UsageEvent]:
    return list(map(as_contract, started.spool.file.remaining()))


@pytest.mark.parametrize(("bill", "tokens"), [(True, EXPECTED), (False, TokenCounts(0, 0))])
async def test_what_was_in_flight_becomes_an_event(tmp_path: Path, *, bill: bool, tokens: TokenCounts) -> None:
    leave(tmp_path, kept())
    started = proxy(tmp_path, bill_interrupted=bill)
    (billed,) = await started.recover(kit.none_is_counted)
    (event,) = spooled(started)
    assert event.idempotency_key == billed.idempotency_key == "01KEY"
    assert (event.outcome, event.usage_source, event.tokens) == (
        Outcome.GATEWAY_INTERRUPTED,
        UsageSource.ESTIMATED,
        Tokens(input_tokens=tokens.input_tokens, output_tokens=tokens.output_tokens),
    )
    assert event.charged_groups == ("own", "parent", "root")
    await started.close()


async def test_a_slot_that_a_power_cut_brought_back_is_not_billed_again(tmp_path: Path) -> None:
    leave(tmp_path, kept())
    started = proxy(tmp_path)

    async def is_counted(key: str) -> bool:
        return key == "01KEY"

    assert await started.recover(is_counted) == []
    assert spooled(started) == []
    await started.close()


async def test_what_is_spooled_already_is_not_billed_again(tmp_path: Path) -> None:
    before = proxy(tmp_path)
    await before.spool.put(draft(1))
    await before.close()
    leave(tmp_path, kept(idempotency_key=draft(1).idempotency_key))
    started = proxy(tmp_path)
    assert await started.recover(kit.none_is_counted) == []
    assert len(spooled(started)) == 1
    await started.close()


async def test_what_a_power_cut_has_torn_holds_no_start_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    leave(tmp_path, b'{"idempotencyKey":"01', b"\x00" * 50, kept())
    started = proxy(tmp_path)
    with caplog.at_level(logging.ERROR):
        assert [billed.idempotency_key for billed in await started.recover(kit.none_is_counted)] == ["01KEY"]
    assert len(caplog.records) == 2
    await started.close()
    again = proxy(tmp_path)
    assert await again.recover(kit.none_is_counted) == []
    await again.close()


async def test_rows_and_interruptions_count_against_the_day(tmp_path: Path) -> None:
    before = proxy(tmp_path)
    await before.spool.put(draft(1))
    await before.spool.put(draft(2))
    await before.close()
    leave(tmp_path, kept(route=kit.route().event))
    started = proxy(tmp_path)
    await started.recover(kit.none_is_counted)
    used = 1 + 2 + 2 + 2 + EXPECTED.input_tokens + EXPECTED.output_tokens
    assert started.days.total(kit.GROUP, kit.SLUG, kit.NOW.date()) == (3, used)
    assert started.days.total("parent", kit.SLUG, kit.NOW.date()) == (2, 7)
    await started.close()


async def test_a_draining_spool_of_another_boot_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = proxy(tmp_path)
    await before.spool.put(draft(1))
    await before.close()
    leave(tmp_path, kept(idempotency_key=draft(1).idempotency_key))
    monkeypatch.setattr("proxy.spool.writer.boot_id", lambda: "another boot")
    started = proxy(tmp_path)
    assert await started.recover(kit.none_is_counted) == []
    assert len(started.older_files) == 1
    assert started.days.total(kit.GROUP, kit.SLUG, kit.NOW.date()) == (1, 3)
    await started.close()
