"""What every `UsageSink` must do (contract 4, counting 1)."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.core.calls import SpoolUnavailableError
from proxy.ports import UsageSink
from proxy.spool import writer
from runtime.settings import SpoolSync
from schemas.usage import UsageDraft
from tests.contracts.proxy.drafts import draft
from tests.support.events import as_contract
from tests.unit.proxy.fakes import ListSink


class Stage:
    """A sink, what is in it, and a way to make it fail."""

    sink: UsageSink
    kept: Callable[[], list[UsageDraft]]
    fail: Callable[[], object]
    mend: Callable[[], object]

    async def put(self, one: UsageDraft) -> int:
        """Append an event; return its sequence once it is durable."""
        durable: asyncio.Future[int | SpoolUnavailableError] = asyncio.get_running_loop().create_future()
        self.sink.append(one.model_dump_json().encode(), one.outcome, durable.set_result)
        told = await durable
        if isinstance(told, SpoolUnavailableError):
            raise told
        return told


def over_a_list() -> Stage:
    sink = ListSink()
    stage = Stage()
    stage.sink = sink
    stage.kept = lambda: sink.drafts
    stage.fail = lambda: setattr(sink, "failure", SpoolUnavailableError("full"))
    stage.mend = lambda: setattr(sink, "failure", None)
    return stage


def over_a_spool(opened: writer.Spool) -> Stage:
    stage = Stage()
    stage.sink = opened
    stage.kept = lambda: [
        UsageDraft.model_validate(as_contract(event).model_dump(exclude={"producer"}))
        for event in opened.file.remaining()
    ]

    def reopen(flags: int) -> None:
        file = os.open(opened.file.segments.newest, flags)
        os.dup2(file, opened._file)
        os.close(file)

    stage.fail = lambda: reopen(os.O_RDONLY)
    stage.mend = lambda: reopen(os.O_WRONLY)
    return stage


@pytest.fixture(params=["list", *SpoolSync])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    if request.param == "list":
        yield over_a_list()
        return
    opened, _ = writer.open_folder(tmp_path, sync=request.param, max_bytes=2**30)
    yield over_a_spool(opened)
    opened.close()


async def test_an_event_is_there_when_put_returns(stage: Stage) -> None:
    for number in range(3):
        await stage.put(draft(number))
        assert stage.kept() == [draft(each) for each in range(number + 1)]


async def test_sequences_count_from_one_without_a_gap(stage: Stage) -> None:
    assert [await stage.put(draft(number)) for number in range(5)] == [1, 2, 3, 4, 5]


async def test_puts_of_one_moment_keep_their_order(stage: Stage) -> None:
    sequences = await asyncio.gather(*[stage.put(draft(number)) for number in range(20)])
    assert sequences == list(range(1, 21))
    assert stage.kept() == [draft(number) for number in range(20)]


async def test_a_failure_says_so_and_takes_no_sequence(stage: Stage) -> None:
    await stage.put(draft(0))
    stage.fail()
    with pytest.raises(SpoolUnavailableError):
        await stage.put(draft(1))
    stage.mend()
    assert await stage.put(draft(2)) == 2
    assert stage.kept() == [draft(0), draft(2)]


async def test_nothing_is_blocked_at_first(stage: Stage) -> None:
    assert stage.sink.blocked is None
    await stage.put(draft(0))
    assert stage.sink.blocked is None
