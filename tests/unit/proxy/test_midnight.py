"""The day ends: limits open at midnight UTC without a message, and a clock that steps back reopens nothing."""

from datetime import UTC, datetime, timedelta

import pytest

from proxy.admission import Admissions
from proxy.call import Call
from proxy.core.replies import Reply
from proxy.dialects.answers import Count
from proxy.large import Large
from proxy.limits.counters import LanePart
from proxy.limits.days import DayCounters, DayLimit
from proxy.limits.estimate import TokenCounts
from proxy.windows.memory import MemoryPlaces
from runtime import clock
from runtime.beside import Beside
from schemas.limits import LimitType
from schemas.usage import UsageSource
from tests.unit.proxy import fakes, kit
from tests.unit.proxy.bodies import ASKED
from tests.unit.proxy.fakes import FakeSlots, FakeWindows

BEFORE_MIDNIGHT = datetime(2026, 3, 1, 23, 59, 59, 900_000, tzinfo=UTC)


class Desk:
    """Admissions whose clock a test moves, with one request allowed a day."""

    def __init__(self) -> None:
        self.seconds = BEFORE_MIDNIGHT.timestamp()
        self.days = DayCounters(kit.INSTANCE)
        limit = DayLimit(LimitType.REQUEST, 1, kit.GROUP, kit.GROUP)
        self.admissions = Admissions(
            directory=fakes.FakeDirectory(
                {kit.key().prefix: kit.key()}, {(kit.GROUP, kit.SLUG): kit.route(day_limits=(limit,))}
            ),
            day_counters=self.days,
            rate_windows=FakeWindows(),
            places=MemoryPlaces(),
            in_flight=FakeSlots(),
            accept_bearer=False,
            clock=clock.steady(lambda: self.seconds),
            mint=lambda _: "key",
            mint_request=lambda _: "request",
            most_output_tokens=kit.MOST_OUTPUT,
            large=Large(Beside()),
        )
        self.sequence = 0

    async def ask(self) -> Call | Reply:
        return await self.admissions.admit(kit.key(), ASKED)

    async def use(self) -> None:
        """Let one request through to its end."""
        call = await self.ask()
        assert isinstance(call, Call)
        self.sequence += 1
        count = Count(TokenCounts(input_tokens=1, output_tokens=1), UsageSource.PROVIDER)
        self.admissions.settle(call, self.sequence, count)

    async def refusal(self) -> Reply:
        reply = await self.ask()
        assert isinstance(reply, Reply)
        assert reply.status == 429
        return reply


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_used_up_day_opens_at_midnight_without_a_message(desk: Desk) -> None:
    await desk.use()
    assert dict((await desk.refusal()).headers)[b"retry-after"] == b"1", "0.1 s left is rounded up"
    desk.seconds += 0.099
    await desk.refusal()
    desk.seconds += 0.002
    await desk.use()
    await desk.refusal()


async def test_a_request_belongs_to_the_day_of_its_admission(desk: Desk) -> None:
    call = await desk.ask()
    assert isinstance(call, Call)
    desk.seconds += 1
    desk.admissions.settle(call, 1, Count(TokenCounts(input_tokens=5, output_tokens=5), UsageSource.PROVIDER))
    yesterday = BEFORE_MIDNIGHT.date()
    assert desk.days.total(kit.GROUP, kit.SLUG, yesterday) == (1, 10)
    assert desk.days.total(kit.GROUP, kit.SLUG, yesterday + timedelta(days=1)) == (0, 0)


async def test_a_clock_that_steps_back_over_midnight_reopens_no_day(desk: Desk) -> None:
    await desk.use()
    desk.seconds += 1
    await desk.use()
    desk.seconds -= 3600
    await desk.refusal()
    assert desk.days.total(kit.GROUP, kit.SLUG, BEFORE_MIDNIGHT.date()) == (1, 2), "yesterday is closed"


async def test_yesterdays_decision_does_not_hold_today(desk: Desk) -> None:
    desk.seconds += 1
    desk.days.take_part(kit.GROUP, kit.SLUG, BEFORE_MIDNIGHT.date(), "spool", LanePart(1, 10, 9, 9))
    await desk.use()
